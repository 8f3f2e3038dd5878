"""Runs an ONNX network over images with onnxruntime, as it is asked to.

onnxruntime.py MODEL IMAGES N C H W, where IMAGES holds N x C x H x W floats of four bytes.
It prints its version, then for each line {"threads", "from", "count"} that it reads the
time that these images took in one call after another that does not count, and their
classes. All are JSON, a line each.
"""

import json
import sys
import time


def say(**answer):
    print(json.dumps(answer), flush=True)


try:
    import numpy
    import onnxruntime
except ImportError as e:
    say(missing=e.name)
    sys.exit()

images = numpy.fromfile(sys.argv[2], dtype="<f4").reshape([int(n) for n in sys.argv[3:]])
sessions = {}


def session(threads):
    if threads not in sessions:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        sessions[threads] = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    return sessions[threads]


say(version=onnxruntime.__version__)
for line in sys.stdin:
    asked = json.loads(line)
    part = images[asked["from"] : asked["from"] + asked["count"]]
    s = session(asked["threads"])
    inputs = {s.get_inputs()[0].name: part}
    s.run(None, inputs)
    cpu, start = time.process_time_ns(), time.perf_counter_ns()
    scores = s.run(None, inputs)[0]
    elapsed, cpu = time.perf_counter_ns() - start, time.process_time_ns() - cpu
    say(elapsed_ns=elapsed, cpu_ns=cpu, classes=scores.argmax(axis=1).tolist())
