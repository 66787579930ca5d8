"""What keeps a job apart from the machine and from other jobs: what is in force on this machine.

Made by `isolation.find`; used by launch.py, which starts jobs with it, and by sandbox.py, which says what it comes to.
"""

from dataclasses import dataclass
from pathlib import Path

from dragoman.core.errors import Kind, ServingError


@dataclass(frozen=True, slots=True)
class Isolation:
    """What this machine allows. Without `bwrap` jobs have no namespaces at all, only the shim."""

    bwrap: str = ""
    """Its path: own files and processes."""
    own_network: bool = False
    """Whether a job may have a network of its own."""
    uplink: str = ""
    """Path of slirp4netns: a way out of that network."""
    options: frozenset[str] = frozenset()
    """Which options this bubblewrap has, of those that older ones lack: without them jobs may make namespaces, or fill /dev/shm."""
    hidden: tuple[Path, ...] = ()
    """Folders of the server, which no job sees even if they lie in folders that it does see."""
    why: str = ""
    """Why it is not more."""

    def moves_port(self, network: bool) -> bool:
        """Whether a job, with or without a way out, listens on another port than it thinks: it has the machine's network."""
        return not (self.bwrap and self.own_network and (self.uplink or not network))

    def check(self, network: bool, who: str) -> None:
        """Raises UNAVAILABLE when `who` is to have no network, and that cannot be had."""
        if not network and self.moves_port(network=False):
            reason = f"this machine does not allow networks of their own ({self.why or 'no namespaces'})"
            raise ServingError(Kind.UNAVAILABLE, f"{who} is to have no network: {reason}", what="job")

    def sentence(self, network: bool = True) -> str:
        """What is in force for a job, for its log."""
        if not self.bwrap:
            said = (
                "no namespaces: the job runs as this server's user, port 5000 and the folders /input, /output are mapped by a start-up shim"
            )
        elif self.moves_port(network):
            said = "own files and processes, the machine's network: port 5000 is moved by a start-up shim"
        else:
            said = f"own files, processes and network ({'with a way out' if network else 'without a way out'})"
        return f"{said} ({self.why})" if self.why and self.moves_port(network) else said
