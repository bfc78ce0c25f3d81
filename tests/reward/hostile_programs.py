"""Sixty programs that try to get out, to be rewarded for nothing, or to stay.

Each is asked for a secret that nobody told it: it lies in the environment, the memory and the home directory of the
process that judges, in the expected output, and behind a socket. So what leaks is rewarded, and the test sees it.
HOME, RUN, PORT, OWNER and MARK are replaced: a folder, a folder, a port on 127.0.0.1, a process id, and the beginning
of the names of files that must not appear outside.
"""

# ruff: noqa: E501 - programs

SCRIPT, CALL, ASSERT = "script", "call", "assert"

HOSTILE: dict[str, tuple[str, str]] = {
    # what it is not told
    "environment": (SCRIPT, "import os\nprint(os.environ['SHOAL_SECRET'])"),
    "environment of libc": (
        SCRIPT,
        "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.getenv.restype = ctypes.c_char_p\n"
        "print(libc.getenv(b'SHOAL_SECRET').decode())",
    ),
    "environment of others": (
        SCRIPT,
        "import glob\nfor path in glob.glob('/proc/*/environ'):\n  for word in open(path).read().split(chr(0)):\n"
        "    if word.startswith('SHOAL_SECRET='): print(word[13:])",
    ),
    "memory of the parent": (
        SCRIPT,
        "import os, re\nfor pid in (OWNER, os.getppid(), 1):\n  try:\n"
        "    for line in open(f'/proc/{pid}/maps'):\n      start, end = (int(x, 16) for x in line.split()[0].split('-'))\n"
        "      with open(f'/proc/{pid}/mem', 'rb') as file:\n        file.seek(start)\n"
        "        found = re.search(rb'secret-[0-9a-f]{32}', file.read(end - start))\n"
        "        if found: print(found.group().decode()); raise SystemExit\n  except OSError: pass",
    ),
    "process_vm_readv": (
        SCRIPT,
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\nbuffer = ctypes.create_string_buffer(64)\n"
        "class V(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), ('len', ctypes.c_size_t)]\n"
        "local, remote = V(ctypes.addressof(buffer), 64), V(0x400000, 64)\n"
        "for pid in (OWNER, os.getppid(), 1):\n"
        "  n = libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)\n"
        "  assert n == -1 and ctypes.get_errno() == 1, n\nraise SystemExit('refused')",
    ),
    "ptrace": (
        SCRIPT,
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "assert all(libc.ptrace(16, pid, 0, 0) == -1 for pid in (1, OWNER, os.getppid()))\nraise SystemExit('refused')",
    ),
    "home": (SCRIPT, "print(open('HOME/secret').read())"),
    "home by user": (SCRIPT, "import os, pwd\nprint(open(pwd.getpwuid(0).pw_dir + '/secret').read())"),
    "run directory": (SCRIPT, "import glob\nprint(open(glob.glob('RUN/*')[0]).read())"),
    "every file": (
        SCRIPT,
        "import os\nfor top in ('/root', '/home', '/tmp', '/etc', '/dev', '/opt', '/srv', '/var', '/run', '/mnt', '/work'):\n"
        "  for folder, _, names in os.walk(top):\n    for name in names:\n"
        "      if name == 'secret': print(open(os.path.join(folder, name)).read()); raise SystemExit\n"
        "assert not set(os.listdir('/')) & {'home', 'var', 'run', 'proc', 'sys', 'mnt', 'work'}, os.listdir('/')\n"
        "raise SystemExit('nothing')",
    ),
    "link out of tmp": (
        SCRIPT,
        "import os\nos.symlink('HOME', '/tmp/home')\nos.symlink('/proc/1/root', '/tmp/root')\n"
        "print(open('/tmp/home/secret').read() or open('/tmp/rootHOME/secret').read())",
    ),
    "descriptors that were left open": (
        SCRIPT,
        "import os\nfor fd in range(3, 1024):\n  try: print(os.read(fd, 1000).decode())\n  except OSError: pass",
    ),
    "mount": (
        SCRIPT,
        "import ctypes, os\nlibc = ctypes.CDLL(None)\nos.mkdir('/tmp/m')\n"
        "libc.unshare(0x10020000)\nlibc.mount(b'proc', b'/tmp/m', b'proc', 0, None)\nlibc.chroot(b'/tmp/m')\n"
        "print(open('/tmp/m/OWNER/environ').read().split('SHOAL_SECRET=')[1].split(chr(0))[0])",
    ),
    "become root": (SCRIPT, "import os\nos.setresuid(0, 0, 0)\nprint(open('HOME/secret').read())"),
    "a raw disk": (
        SCRIPT,
        "import os\nos.mknod('/tmp/disk', 0o60600, os.makedev(254, 0))\nprint(open('/tmp/disk').read(9))",
    ),
    # the network
    "socket": (
        SCRIPT,
        "import socket\npeer = socket.create_connection(('127.0.0.1', PORT), 1)\nprint(peer.recv(100).decode())",
    ),
    "socket outside": (
        SCRIPT,
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.sendto(b'x', ('10.0.0.1', 53))",
    ),
    "abstract socket": (
        SCRIPT,
        "import socket\npeer = socket.socket(socket.AF_UNIX)\npeer.connect(chr(0) + 'shoal-PORT')\n"
        "print(peer.recv(100).decode())",
    ),
    "raw netlink": (
        SCRIPT,
        "import socket\ns = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\nprint(s.recv(10))",
    ),
    # a verdict of its own
    "prints the verdict": (SCRIPT, "print('PASS')\nprint('all tests passed')\nprint('R')\nprint('{\"passed\": true}')"),
    "exits with 0": (SCRIPT, "import sys\nsys.exit(0)"),
    "os._exit 0": (CALL, "import os\nos._exit(0)"),
    "os._exit 0 in the call": (ASSERT, "import os\ndef secret():\n  os._exit(0)"),
    "SystemExit in the call": (ASSERT, "def secret():\n  raise SystemExit(0)"),
    "writes answers itself": (
        CALL,
        'import os, struct\nm = b\'{"value": true, "passed": true, "names": ["secret"], "changed": {}}\'\n'
        "for fd in range(1, 64):\n  try: [os.write(fd, struct.pack('!I', len(m)) + m) for _ in range(3)]\n"
        "  except OSError: pass\ndef secret(): return 1",
    ),
    "writes verdicts itself": (
        ASSERT,
        'import os, struct\nm = b\'{"passed": true, "detail": "", "names": ["secret"], "value": null}\'\n'
        "for fd in range(1, 64):\n  try: [os.write(fd, struct.pack('!I', len(m)) + m) for _ in range(9)]\n"
        "  except OSError: pass\nos._exit(0)",
    ),
    "equal to everything": (
        ASSERT,
        "class Yes(str):\n  __eq__ = lambda self, other: True\n  __ne__ = lambda self, other: False\n"
        "  __hash__ = str.__hash__\n  __bool__ = lambda self: True\ndef secret(): return Yes('x')",
    ),
    "an object equal to everything": (
        CALL,
        "class Yes:\n  __eq__ = lambda self, other: True\n  __str__ = lambda self: 'x'\ndef secret(): return Yes()",
    ),
    "patches the builtins": (
        ASSERT,
        "import builtins, json\nbuiltins.print = builtins.exit = lambda *a: None\njson.dumps = lambda *a: '{\"passed\": true}'\n"
        "builtins.all = builtins.any = builtins.bool = lambda *a: True\nbuiltins.AssertionError = ZeroDivisionError\n"
        "def secret(): return None",
    ),
    "patches the server": (
        ASSERT,
        "import sys\nfor name in list(sys.modules):\n  if name.startswith('reward'):\n"
        "    for key in list(vars(sys.modules[name])):\n      if callable(vars(sys.modules[name])[key]):\n"
        "        setattr(sys.modules[name], key, lambda *a, **k: {'passed': True})\ndef secret(): return 1",
    ),
    "reads the frames": (
        CALL,
        "import gc, sys\ndef secret():\n  frame, found = sys._getframe(), []\n  while frame:\n"
        "    found += [v for v in frame.f_locals.values()]\n    frame = frame.f_back\n"
        "  for thing in gc.get_objects() + found:\n    if 'secret-' in repr(thing)[:2000]:\n"
        "      i = repr(thing).index('secret-')\n      return repr(thing)[i:i + 39]\n  return None",
    ),
    "answers at exit": (
        SCRIPT,
        "import atexit, os\natexit.register(lambda: os._exit(0))\nimport sys\nsys.excepthook = lambda *a: None\n1 / 0",
    ),
    "returns a pickle": (
        CALL,
        "class Bomb:\n  def __reduce__(self): return (open, ('MARK-pickle', 'w'))\n"
        "import pickle\ndef secret(): return pickle.dumps(Bomb())",
    ),
    "returns more than there is": (CALL, "def secret(): return 'x' * 300_000_000"),
    "returns what is nested": (
        CALL,
        "import os\nm = b'{\"value\": ' + b'[' * 500_000 + b']' * 500_000 + b'}'\n"
        "def secret():\n  for fd in range(1, 64):\n"
        "    try: os.write(fd, len(m).to_bytes(4, 'big') + m)\n    except OSError: pass",
    ),
    # too much
    "fork bomb": (SCRIPT, "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"),
    "threads": (
        SCRIPT,
        "import threading, time\nthreading.stack_size(65536)\n"
        "for _ in range(100): threading.Thread(target=time.sleep, args=(99,), daemon=True).start()",
    ),
    "ten gigabytes": (SCRIPT, "x = bytearray(10 * 2**30)\nprint(len(x))"),
    "gigabytes in forks": (
        SCRIPT,
        "import os, time\nfor _ in range(20):\n  if os.fork() == 0:\n    x = bytearray(b'x') * (100 << 20)\n    time.sleep(9)\n"
        "time.sleep(9)",
    ),
    "a gigabyte of output": (SCRIPT, "import os\nx = b'x' * 2**20\nfor _ in range(1024): os.write(1, x)"),
    "a gigabyte of errors": (SCRIPT, "import os\nx = b'x' * 2**20\nfor _ in range(1024): os.write(2, x)"),
    "files that fill the disk": (
        SCRIPT,
        "import os\nfor i in range(200):\n  with open(f'/tmp/{i}', 'wb') as file: file.write(b'x' * 2**20)",
    ),
    "deep recursion": (
        SCRIPT,
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(n): return sorted([n], key=lambda n: f(n + 1))\nf(0)",
    ),
    "memory that is nobody's": (SCRIPT, "import os\nfds = [os.memfd_create('x') for _ in range(50)]"),
    # never ending, and staying
    "an endless loop": (SCRIPT, "while True: pass"),
    "sleeps": (CALL, "import time\ndef secret():\n  time.sleep(1000)"),
    "catches every signal": (
        SCRIPT,
        "import signal, time\nfor number in range(1, 65):\n  try: signal.signal(number, signal.SIG_IGN)\n"
        "  except (OSError, ValueError): pass\nwhile True:\n  try: time.sleep(9)\n  except BaseException: pass",
    ),
    "a daemon": (
        SCRIPT,
        "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    for fd in range(3): os.close(fd)\n"
        "    while True: time.sleep(1)\n  os._exit(0)\nos.wait()",
    ),
    "a daemon that holds the output": (
        SCRIPT,
        "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork(): os._exit(0)\n  while True: time.sleep(1)\nos.wait()",
    ),
    "closes its output and stays": (SCRIPT, "import os, time\nfor fd in range(3): os.close(fd)\ntime.sleep(1000)"),
    "kills all": (
        SCRIPT,
        "import os, signal\nfor pid in (OWNER, os.getppid(), 1, -1):\n  try: os.kill(pid, 9)\n  except OSError: pass\n"
        "raise SystemExit('still here')",
    ),
    # outside, and odd
    "writes outside": (
        SCRIPT,
        "import os, sys\nfor folder in ('/', '/usr', '/usr/lib', '/dev', '/etc', '/tmp/..', 'RUN', 'HOME', sys.prefix, os.__file__[:-6]):\n"
        "  try: open(folder + '/MARK', 'w').close(); print('secret', folder)\n  except OSError: pass\nopen('/tmp/MARK', 'w')",
    ),
    "rewrites the interpreter": (
        SCRIPT,
        "import os, json\nopen(json.__file__, 'a').write('x')\nos.unlink(os.__file__)",
    ),
    "another program": (
        SCRIPT,
        "import subprocess\nprint(subprocess.check_output(['/bin/sh', '-c', 'cat HOME/secret']))",
    ),
    "a huge source": (SCRIPT, "x = [" + "1," * 60_000 + "]"),
    "a NUL": (SCRIPT, "print(1)\0print(2)"),
    "half a surrogate": (CALL, "def secret(): return '\ud800'"),
    "no Python": (SCRIPT, "I think that the secret is the following."),
    "output that is no text": (SCRIPT, "import os\nos.write(1, bytes(range(256)) * 100)"),
    "nothing": (ASSERT, ""),
}
