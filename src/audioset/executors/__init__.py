"""Executors run the networks: ``onnx`` writes a graph, ``openvino`` and ``onnxruntime`` run it."""
