"""A QMP monitor for tests: the qemu.qmp client on an event loop of its own, used from plain threads."""

import asyncio
import json
import socket
import threading
import time

from qemu.qmp import ExecuteError, QMPClient


class _Loop:
    """One event loop on one thread for all monitors of the process."""

    _shared = None
    _lock = threading.Lock()

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="qmp", daemon=True).start()

    @classmethod
    def run(cls, coroutine, timeout):
        with cls._lock:
            cls._shared = cls._shared or cls()
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(coroutine, timeout), cls._shared.loop).result()


class CommandError(Exception):
    """An error reply: its class and text."""

    def __init__(self, error_class, description):
        super().__init__(f"{error_class}: {description}")
        self.error_class = error_class
        self.description = description


class JobError(Exception):
    """A job that concluded with an error."""

    def __init__(self, job):
        super().__init__(job["error"])
        self.job = job


def _wire(arguments):
    return {key.replace("_", "-"): value for key, value in arguments.items() if value is not None}


class Monitor:
    """A connected monitor past negotiation. Events are kept, in order, from the connection on."""

    def __init__(self, address, timeout=30):
        self.client = QMPClient("test")
        self.events = []
        self._changed = threading.Condition()
        self._jobs = 0
        deadline = time.monotonic() + timeout
        while True:
            try:
                _Loop.run(self._connect(str(address)), timeout)
                return
            except Exception:
                if time.monotonic() > deadline:
                    raise
                self.client = QMPClient("test")
                time.sleep(0.05)

    async def _connect(self, address):
        await self.client.connect(address)
        self._pump = asyncio.create_task(self._keep_events())

    async def _keep_events(self):
        async for event in self.client.events:
            with self._changed:
                self.events.append(event)
                self._changed.notify_all()

    def close(self):
        async def leave():
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
            await self.client.disconnect()
        try:
            _Loop.run(leave(), 10)
        except Exception:  # The peer may be gone already, which is what some tests are about.
            pass

    def execute(self, command, /, timeout=60, **arguments):
        """Runs a command; underscores in argument names stand for hyphens."""
        try:
            return _Loop.run(self.client.execute(command, _wire(arguments) or None), timeout)
        except ExecuteError as error:
            raise CommandError(error.error_class, str(error)) from None

    # Events

    def mark(self):
        """A place in the stream of events, for `since`."""
        with self._changed:
            return len(self.events)

    def events_since(self, mark, name=None):
        with self._changed:
            return [event for event in self.events[mark:] if name in (None, event["event"])]

    def wait_event(self, name, since=0, where=lambda data: True, timeout=60):
        """The first event of that name whose data satisfy `where`."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for event in self.events[since:]:
                    if event["event"] == name and where(event.get("data", {})):
                        return event
                if not self._changed.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"no event {name} within {timeout} s; seen: {self.events[since:]}")

    # Jobs

    def new_job_id(self):
        self._jobs += 1
        return f"job-{self._jobs}"

    def job(self, job_id):
        return next((job for job in self.execute("query-jobs") if job["id"] == job_id), None)

    def job_statuses(self, job_id, since=0):
        return [event["data"]["status"] for event in self.events_since(since, "JOB_STATUS_CHANGE")
                if event["data"]["id"] == job_id]

    def wait_job(self, job_id, timeout=300, dismiss=True):
        """Waits until the job is concluded; returns its `query-jobs` entry, or raises JobError."""
        deadline = time.monotonic() + timeout
        while True:
            job = self.job(job_id)
            if job is None:
                raise AssertionError(f"job {job_id} is gone")
            if job["status"] == "concluded":
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"job {job_id} is still {job}")
            time.sleep(0.02)
        if dismiss:
            self.execute("job-dismiss", id=job_id)
        if "error" in job:
            raise JobError(job)
        return job

    def run_job(self, command, /, timeout=300, **arguments):
        """Starts a job by `command` and waits for its end."""
        arguments.setdefault("job_id", self.new_job_id())
        self.execute(command, **arguments)
        return self.wait_job(arguments["job_id"], timeout)


class RawMonitor:
    """A bare connection, for tests about the wire itself."""

    def __init__(self, address, negotiate=False):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(str(address))
        self._buffer = b""
        self.greeting = self.receive()
        if negotiate:
            self.ask({"execute": "qmp_capabilities"})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, text):
        self.socket.sendall(text if isinstance(text, bytes) else text.encode())

    def receive_line(self):
        while b"\n" not in self._buffer:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError("the monitor closed the connection")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line + b"\n"

    def receive(self):
        return json.loads(self.receive_line())

    def ask(self, message):
        """Sends one message (a value, or text as it is) and returns the next line that is no event."""
        self.send(message if isinstance(message, (str, bytes)) else json.dumps(message))
        while True:
            reply = self.receive()
            if "event" not in reply:
                return reply
