"""Runs an ONNX network over images with onnxruntime, on one thread.

networks.py MODEL IMAGES.npy BATCH prints, as JSON, the processor time that the
second of two passes took, and the class of each image.
"""

import json
import sys
import time

import numpy
import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
images, batch = numpy.load(sys.argv[2]), int(sys.argv[3])


def classify():
    parts = [images[i : i + batch] for i in range(0, len(images), batch)]
    start = time.process_time_ns()
    scores = [session.run(None, {name: part})[0] for part in parts]
    took = time.process_time_ns() - start
    return took, numpy.concatenate(scores).argmax(axis=1)


classify()
took, classes = classify()
json.dump({"version": onnxruntime.__version__, "cpu_ns": took, "classes": classes.tolist()}, sys.stdout)
