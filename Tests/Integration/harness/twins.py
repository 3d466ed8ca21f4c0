"""The agent and the reference for many tests: started once, and anew after a test that may have left something."""

import pathlib
import shutil
import tempfile

from .agent import Agent
from .reference import StorageDaemon


class LastingTwins:
    """Both peers, each with a folder and an NBD server of its own."""

    def __init__(self):
        self.directory = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def ready(self):
        """Itself, with both running."""
        if self.directory is None:
            self.directory = pathlib.Path(tempfile.mkdtemp(prefix="cf-"))
            self.our_folder, self.their_folder = self.directory / "ours", self.directory / "theirs"
            self.ours, self.theirs = Agent(self.directory).start(), StorageDaemon(self.directory).__enter__()
            for peer, folder in ((self.ours, self.our_folder), (self.theirs, self.their_folder)):
                folder.mkdir()
                peer.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(folder / "nbd.sock")}})
        return self

    def end(self):
        """Whatever they are at."""
        if self.directory is None:
            return
        directory, self.directory = self.directory, None
        try:
            self.theirs.__exit__()
        finally:
            self.ours.stop()
            shutil.rmtree(directory, ignore_errors=True)
