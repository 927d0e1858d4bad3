-- wrk's script: its threads take turns among the addresses in TARGETS, and its last line is JSON.

local started = 0
local targets = {}

function setup(thread)
    if #targets == 0 then
        for target in (os.getenv("TARGETS") or ""):gmatch("%S+") do
            targets[#targets + 1] = target
        end
    end
    local host, port = targets[started % #targets + 1]:match("(.+):(%d+)")
    thread.addr = wrk.lookup(host, port)[1]
    started = started + 1
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        '{"requests": %d, "seconds": %.6f, "errors": %d, "p50_us": %d, "p99_us": %d, "p999_us": %d}\n',
        summary.requests, summary.duration / 1e6,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout,
        latency:percentile(50), latency:percentile(99), latency:percentile(99.9)
    ))
end
