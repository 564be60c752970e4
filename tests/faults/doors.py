"""What decides whom a server lets in: a file of tokens, and a policy; to be changed while it runs."""

from __future__ import annotations

from pathlib import Path

from remote_gym.auth.tokens import add_token
from remote_gym.server.access.policy import DEFAULT


class Authorizer:
    """Files for ``--token-file`` and ``--policy``, by which everybody named may open everything at first.

    Args:
        folder: For the files.
        names: Whom there is a token for.
    """

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self._tokens_file = folder / "tokens"
        self._policy = folder / "policy.toml"
        self.tokens = {name: add_token(self._tokens_file, name) for name in names}
        """Of each."""
        self._lines = self._tokens_file.read_text().splitlines(keepends=True)
        self.allow(*names)

    @property
    def flags(self) -> tuple[str, ...]:
        """Of ``remote-gym serve``."""
        return "--token-file", str(self._tokens_file), "--policy", str(self._policy)

    def revoke(self, name: str) -> None:
        """Delete a name's token from the file."""
        _replace(self._tokens_file, "".join(line for line in self._lines if not line.startswith(f"{name} ")))

    def give_back(self) -> None:
        """Have all tokens in the file again."""
        _replace(self._tokens_file, "".join(self._lines))

    def rewrite_tokens(self) -> None:
        """Write the file as editors do that do not replace it: it is empty for a moment."""
        with self._tokens_file.open("w") as file:
            file.flush()
            file.write("".join(self._lines))

    def allow(self, *names: str) -> None:
        """Let these open the environment, and nobody else."""
        tables = (f'[allow."token:{name}"]\nenvironments = ["{DEFAULT}"]\n' for name in names)
        _replace(self._policy, "\n".join(tables))

    def break_policy(self) -> None:
        """Leave a file that is no policy."""
        _replace(self._policy, "[allow.")


def _replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)
