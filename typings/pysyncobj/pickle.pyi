from typing import Any

load: Any
loads: Any
