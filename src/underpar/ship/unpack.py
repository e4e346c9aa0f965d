# What a packed file says in clear: it unpacks the program in PACKED and runs it in its own place.
# The text goes into linecache, so that tracebacks show its lines and inspect.getsource works, which
# compilers of GPU kernels need. This file is never imported: ``pack`` reads it and fills PACKED in.
import base64
import bz2
import linecache

PACKED = ""
text = bz2.decompress(base64.b85decode(PACKED)).decode()
linecache.cache["-"] = 1, None, text.splitlines(True), "-"
exec(compile(text, "-", "exec"))
