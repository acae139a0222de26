"""Memory between two trainings of one process."""

from __future__ import annotations

import gc
import sys

import keras


def forget_dead_models() -> None:
    """Give back what models that nobody holds any more have left behind.

    TensorFlow 2.21 keeps the graph of each training step beyond its model: its operations refer to each other where
    Python's collector does not look. Graphs whose every variable is gone are taken apart by hand, by the function that
    TensorFlow itself takes its own apart with.
    """
    keras.backend.clear_session()
    gc.collect()
    graphs = sys.modules.get("tensorflow.python.framework.func_graph")
    if graphs is None:
        return
    # by type: `isinstance` would ask each object, and Airflow's lazy ones would then load what is not there
    for graph in [one for one in gc.get_objects() if type(one) is graphs.FuncGraph]:
        variables = graph._weak_variables
        if variables and all(variable() is None for variable in variables):
            graphs.dismantle_func_graph(graph)
            graph._function_captures._cached_by_val_capture_tuples = []  # forgotten there: it holds the weights
