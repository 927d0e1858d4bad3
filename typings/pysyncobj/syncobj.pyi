from typing import Any

createJournal: Any
