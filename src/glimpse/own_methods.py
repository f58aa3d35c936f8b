"""Check the methods that a user's own class defines, before a run calls them."""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from lightning.pytorch.callbacks import Callback

from glimpse.errors import UserError

# Lightning passes the arguments of all other hooks by position.
BY_KEYWORD = {"setup": "stage", "teardown": "stage"}
SIMILAR = 0.75  # on_val_epoch_end and on_validation_epoch_end: 0.82


def takes(method: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
    """Whether a method can be called with these arguments; True if its signature is unknown."""
    try:
        signature = inspect.signature(method)
    except (ValueError, TypeError):
        return True
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def require_hooks(callback: Callback) -> None:
    """Require each hook of a callback to take the arguments that Lightning passes.

    Raises:
        UserError: one does not. Lightning would find this out when it first calls the hook, perhaps
            after an epoch.
    """
    for name, expected in _hooks().items():
        if getattr(type(callback), name) is getattr(Callback, name):
            continue
        required = [p.name for p in expected if p.default is p.empty]
        keyword = BY_KEYWORD.get(name)
        by_position = [given for given in required if given != keyword]
        by_keyword = {keyword: None} if keyword else {}
        if not takes(getattr(callback, name), *by_position, **by_keyword):
            arguments = ", ".join(["self", *(p.name for p in expected)])
            raise UserError(
                f"callbacks: {type(callback).__name__}.{name} does not take the arguments that Lightning "
                f"passes: write def {name}({arguments})"
            )


def remarks_on_hooks(callback: Callback) -> list[str]:
    """Remark on methods whose names resemble a hook, but which Lightning never calls."""
    remarks = []
    for name in dir(type(callback)):
        if not name.startswith("on_") or hasattr(Callback, name):
            continue
        of_training = name.replace("on_", "on_train_", 1)  # as Lightning 1 had on_epoch_end
        found = [of_training] if of_training in _hooks() else []
        if similar := found or difflib.get_close_matches(name, _hooks(), 1, SIMILAR):
            remarks.append(
                f"{type(callback).__name__}.{name} is not a hook of Lightning, which never calls it: did you "
                f"mean {similar[0]}?"
            )
    return remarks


def _hooks() -> dict[str, list[inspect.Parameter]]:
    """The hooks of a callback, and the parameters of each."""
    names = [n for n in dir(Callback) if n.startswith("on_") or n in BY_KEYWORD]
    signatures = {name: inspect.signature(getattr(Callback, name)) for name in names}
    return {name: [*found.parameters.values()][1:] for name, found in signatures.items()}
