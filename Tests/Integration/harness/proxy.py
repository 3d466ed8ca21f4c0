"""Somebody between the agent and its guest's QMP, who may add words of his own or cut the connection."""

import os
import socket
import threading


class QMPProxy:
    """Takes the place of the socket at `path`; what comes is passed on to who listened there."""

    def __init__(self, path):
        self.behind = f"{path}.behind"
        os.rename(path, self.behind)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(4)
        self.connections = 0
        self._ends = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self.behind)
            except OSError:
                client.close()
                continue
            self._ends = [client, server]
            self.connections += 1
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    @staticmethod
    def _pass(source, target):
        """Words and descriptors, until one side has gone; then the other one is told."""
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(source, 65536, 4)
                if not data:
                    break
                socket.send_fds(target, [data], descriptors)
                for descriptor in descriptors:
                    os.close(descriptor)
            except OSError:
                break
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def say(self, data):
        """To the agent, as if it were the guest's."""
        self._ends[0].sendall(data)

    def cut(self):
        for end in self._ends:
            end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listener.close()
