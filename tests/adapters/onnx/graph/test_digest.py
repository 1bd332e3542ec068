"""The fingerprint of a graph."""

import numpy as np
from onnx import helper, numpy_helper

from ..by_hand import image


def test_fingerprint_sees_numbers_and_wiring_only(conv_graph, open_onnx):
    def edit(model):
        model.producer_name, model.producer_version, model.doc_string = "other", "9", "text"
        model.graph.doc_string = "text"
        for node in model.graph.node:
            node.doc_string = "text"
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor).ravel().tolist()
            kept = helper.make_tensor(
                tensor.name, tensor.data_type, tensor.dims, values
            )  # no longer raw bytes
            tensor.CopyFrom(kept)

    def weight(model):
        tensor = next(t for t in model.graph.initializer if t.name == "w2")
        values = numpy_helper.to_array(tensor).copy()
        values[0, 0, 0, 0] = np.nextafter(values[0, 0, 0, 0], np.float32(np.inf))
        tensor.CopyFrom(numpy_helper.from_array(values, "w2"))

    def wiring(model):
        model.graph.node[2].attribute[0].ints[:] = [1, 1, 1, 2]

    same = [conv_graph(), conv_graph(change=edit), conv_graph(metadata={"a": "b"})]
    same.append(conv_graph(save={"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}))
    prints = {open_onnx(path).fingerprint for path in same}
    assert len(prints) == 1
    others = {open_onnx(conv_graph(change=change)).fingerprint for change in (weight, wiring)}
    assert len(others | prints) == 3


def test_fingerprint_sees_what_the_names_of_layers_mean(conv_graph, open_onnx):
    """Else a stored result for ``c1`` of one file would answer for ``c1`` of the other."""
    one, other = open_onnx(conv_graph()), open_onnx(conv_graph(names=("c2", "r", "c1")))
    assert one.features(image(), "c1").shape != other.features(image(), "c1").shape
    assert one.fingerprint != other.fingerprint
