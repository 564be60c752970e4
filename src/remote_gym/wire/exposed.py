"""Error text for a name that an environment does not expose, at whichever end it is noticed."""

from __future__ import annotations

from collections.abc import Collection


def not_exposed(name: str, *, exposed: Collection[str], lacking: Collection[str], made_by_id: bool) -> str:
    """Say why a name cannot be used, and what would let it be.

    Args:
        name: What was to be called, read or set.
        exposed: What the environment exposes.
        lacking: What the entrypoint lists in ``EXPOSED`` and the environment does not have.
        made_by_id: Whether there is no entrypoint.
    """
    if name in lacking:
        return (
            f"the entrypoint's EXPOSED lists {name!r}, but this environment has no such method or attribute; correct "
            "the name there, or add it to the environment"
        )
    found = f"{name!r} is not exposed; this environment exposes {', '.join(exposed) or 'nothing'}"
    if made_by_id:
        return (
            f"{found}, and is served by its id: serve it by an entrypoint file instead, whose create_environment makes "
            f"it and whose EXPOSED lists {name!r}"
        )
    return f"{found}; list {name!r} in the entrypoint's EXPOSED, or wrap the environment at the server"
