"""Note what hostile files try: every Python of the case finds this module on its path and reports to one file."""

import os
import sys

LOG = os.environ.get("TORTURE_LOG")
ROOT = os.path.realpath(os.environ.get("TORTURE_ROOT", "/"))
PROCESSES = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen"}
SOCKETS = {"socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}
GADGETS = {"os", "posix", "nt", "subprocess", "builtins", "__builtin__", "runpy", "webbrowser"}
HARMLESS = {os.path.realpath(sys.executable), "uname"}  # Python's platform module asks the latter
PROBE = (("::1", 0),)  # how an HTTP client asks whether there is IPv6
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def _hook(event, arguments):
    if event in SOCKETS and arguments[1:] != PROBE:
        _note(f"{event} {arguments[1:]}")
    elif event in PROCESSES and not HARMLESS & {str(arguments[0]), os.path.realpath(str(arguments[0]))}:
        _note(f"{event} {arguments[0]}")
    elif event == "pickle.find_class" and arguments[0].partition(".")[0] in GADGETS:
        _note(f"{event} {arguments}")
    elif event == "open" and isinstance(arguments[0], (str, bytes)) and (arguments[2] or 0) & WRITING:
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if not path.startswith((ROOT + os.sep, "/dev/", "/proc/")) and path != LOG:
            _note(f"write {path}")


def _note(text):
    handle = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{text}\n".encode(errors="backslashreplace"))
    os.close(handle)


if LOG:
    sys.addaudithook(_hook)
