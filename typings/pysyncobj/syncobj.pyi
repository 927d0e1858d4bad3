from typing import Any

createJournal: Any

def monotonicTime() -> float: ...
