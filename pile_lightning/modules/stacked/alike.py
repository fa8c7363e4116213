from typing import Any
def check_alike(members: Any)->None: pass
