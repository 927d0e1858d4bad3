"""Every error gale raises on purpose: one line that says what was wrong, where, and what would be right.

GaleError
├── ConfigError      a configuration file or an option is wrong: nothing was started       exit code 2
├── HostError        this machine lacks something: root, BPF, bcc, an interface, a port    exit code 1
├── DataplaneError   the kernel refused a program, a map write or an attachment            exit code 1
├── ConsensusError   a proposal ended without an outcome: no quorum, or out of time        exit code 1
├── RemoteError      another process answered with a refusal                               exit code 1
│   └── NoAnswerError   it did not answer: no connection, or not in time                   exit code 3
└── LabError         the namespace lab cannot do what was asked                            exit code 1

The command line turns any of them into one line on standard error and the exit code above.
"""


class GaleError(Exception):
    """Root of the tree; its text is one line meant for an operator."""

    exit_code = 1


class ConfigError(GaleError):
    exit_code = 2


class HostError(GaleError):
    pass


class DataplaneError(GaleError):
    pass


class ConsensusError(GaleError):
    pass


class RemoteError(GaleError):
    pass


class NoAnswerError(RemoteError):
    exit_code = 3


class LabError(GaleError):
    pass
