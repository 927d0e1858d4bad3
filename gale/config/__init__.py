"""lb.toml and node.toml, read into frozen types that the rest of gale uses as they are.

Reading has two steps. Structures mirror the files key by key: their types and limits are the rules, their defaults the
only defaults there are. Then `load_lb` and `load_node` check what no single key can show, and give the types of the
core: nobody downstream sees a dictionary, a duration as text, or a missing value.

Every refusal is a ConfigError of one line: file, key, value, rule.
"""

from gale.config.effective import EffectiveConfig
from gale.config.lb import LbConfig, load_lb
from gale.config.node import NodeConfig, load_node
from gale.config.reading import TlsFiles

__all__ = ["EffectiveConfig", "LbConfig", "NodeConfig", "TlsFiles", "load_lb", "load_node"]
