"""Writes the SavedModels of savedmodels.py with TensorFlow: run as a program, `python -m tests.models.savedmodel_graphs FOLDER [NAME...]`.

Not for import by tests: TensorFlow takes seconds and half a gigabyte. What each model does is told in savedmodels.MODELS.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import tensorflow as tf

v1 = tf.compat.v1

PREDICT, CLASSIFY, REGRESS = (f"tensorflow/serving/{method}" for method in ("predict", "classify", "regress"))
DTYPES = (
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("half", "bfloat16", "float32", "float64", "complex64", "complex128", "string", "qint8"),
)
FLOWERS = ("setosa", "versicolor", "virginica")


def signature(method: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
    """A signature of a graph, TensorFlow 1 style."""
    infos = [{name: v1.saved_model.build_tensor_info(tensor) for name, tensor in side.items()} for side in (inputs, outputs)]
    return v1.saved_model.signature_def_utils.build_signature_def(*infos, method)


def save_v1(folder: Path, session: Any, signatures: Mapping[str, Any], tags: Sequence[str] = ("serve",), **more: Any) -> None:
    """What `SavedModelBuilder` of TensorFlow 1 leaves, variables initialized."""
    session.run(v1.global_variables_initializer())
    builder = v1.saved_model.Builder(str(folder))
    builder.add_meta_graph_and_variables(session, list(tags), signature_def_map=dict(signatures), strip_default_attrs=True, **more)
    builder.save()


def save_v2(folder: Path, functions: Mapping[str, tuple[Callable[..., Any], Sequence[Any]]], module: Any = None) -> None:
    """What `tf.saved_model.save` leaves: one signature for each function, its inputs the names of the specs."""
    module = module or tf.Module()
    signatures: dict[str, Any] = {}
    for name, (function, specs) in functions.items():
        traced = tf.function(function, input_signature=list(specs))
        setattr(module, f"fn_{len(signatures)}", traced)
        signatures[name] = traced.get_concrete_function()
    tf.saved_model.save(module, str(folder), signatures)


def spec(name: str, shape: Sequence[int | None] | None, dtype: Any = tf.float32) -> Any:
    return tf.TensorSpec(shape, dtype, name=name)


def half_plus_two(folder: Path) -> None:
    with v1.Graph().as_default(), v1.Session() as session:
        a, b, c = (v1.Variable(value, name=name, use_resource=False) for name, value in (("a", 0.5), ("b", 2.0), ("c", 3.0)))
        serialized = v1.placeholder(tf.string, [None], name="tf_example")
        parsed = v1.parse_example(serialized, {"x": v1.FixedLenFeature([1], tf.float32), "x2": v1.FixedLenFeature([1], tf.float32, [0.0])})
        x = tf.identity(parsed["x"], name="x")
        y, y2 = tf.add(a * x, b, name="y"), tf.add(a * x, c, name="y2")
        y3 = tf.add(a * parsed["x2"], c, name="y3")
        note = folder.parent / "foo.txt"
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text("asset-file-contents")
        v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, tf.constant(str(note), name="filename"))
        save_v1(
            folder,
            session,
            {
                "serving_default": signature(PREDICT, {"x": x}, {"y": y}),
                "regress_x_to_y": signature(REGRESS, {"inputs": serialized}, {"outputs": y}),
                "regress_x_to_y2": signature(REGRESS, {"inputs": serialized}, {"outputs": y2}),
                "regress_x2_to_y3": signature(REGRESS, {"inputs": parsed["x2"]}, {"outputs": y3}),
                "classify_x_to_y": signature(CLASSIFY, {"inputs": serialized}, {"scores": y}),
            },
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
        )
        note.unlink()


def half_plus_three(folder: Path) -> None:
    with v1.Graph().as_default(), v1.Session() as session:
        a, b = v1.Variable(0.5, name="a"), v1.Variable(3.0, name="b")
        serialized = v1.placeholder(tf.string, [None], name="tf_example")
        x = tf.identity(v1.parse_example(serialized, {"x": v1.FixedLenFeature([1], tf.float32)})["x"], name="x")
        y = tf.add(a * x, b, name="y")
        regress = signature(REGRESS, {"inputs": serialized}, {"outputs": y})
        save_v1(folder, session, {"serving_default": signature(PREDICT, {"x": x}, {"y": y}), "tensorflow/serving/regress": regress})


def half_plus_two_tf2(folder: Path) -> None:
    module = tf.Module()
    module.a, module.b = tf.Variable(0.5), tf.Variable(2.0)
    wanted = {"x": tf.io.FixedLenFeature([1], tf.float32)}

    def of_examples(inputs: Any) -> dict[str, Any]:
        return {"outputs": module.a * tf.io.parse_example(inputs, wanted)["x"] + module.b}

    functions = {
        "serving_default": (lambda x: {"y": module.a * x + module.b}, [spec("x", [None, 1])]),
        "regress_x_to_y": (of_examples, [spec("inputs", [None], tf.string)]),
    }
    save_v2(folder, functions, module)


def tagged(folder: Path) -> None:
    def label(tag: Any, signal: Any, sensor: Any) -> dict[str, Any]:
        total = tf.reduce_sum(signal, axis=1) + tf.reduce_sum(sensor, axis=[1, 2])
        return {"label": tf.strings.join([tag, "!"]), "total": total}

    specs = [spec("tag", [None], tf.string), spec("signal", [None, 5]), spec("sensor", [None, 2, 2])]
    save_v2(folder, {"serving_default": (label, specs)})


def image(folder: Path) -> None:
    def one(data: Any) -> tuple[Any, Any]:
        pixels = tf.io.decode_png(data, channels=3)
        return tf.io.encode_png(255 - pixels), tf.reduce_mean(tf.cast(pixels, tf.float32))

    def invert(image_bytes: Any) -> dict[str, Any]:
        inverted, mean = tf.map_fn(one, image_bytes, fn_output_signature=(tf.string, tf.float32))
        return {"inverted_bytes": inverted, "mean": mean}

    save_v2(folder, {"serving_default": (invert, [spec("image_bytes", [None], tf.string)])})


def unknown_rank(folder: Path) -> None:
    save_v2(folder, {"serving_default": (lambda x: {"y": x * 2.0}, [spec("x", None)])})


def picky(folder: Path) -> None:
    weights = tf.ones([4, 3])

    def root(x: Any) -> dict[str, Any]:
        with tf.control_dependencies([tf.debugging.assert_non_negative(x, "x must not be negative")]):
            return {"root": tf.sqrt(x)}

    functions: dict[str, tuple[Callable[..., Any], Sequence[Any]]] = {
        "serving_default": (root, [spec("x", [None])]),
        "matrix": (lambda x: {"y": tf.matmul(x, weights)}, [spec("x", [None, None])]),
        "gather": (
            lambda table, index: {"values": tf.gather(table, index)},
            [spec("table", [None]), spec("index", [None], tf.int64)],
        ),
    }
    save_v2(folder, functions)


def identities(folder: Path) -> None:
    functions: dict[str, tuple[Callable[..., Any], Sequence[Any]]] = {
        "serving_default": (lambda x: {"y": tf.identity(x)}, [spec("x", [None, None])]),
        "scalar": (lambda x: {"y": tf.identity(x)}, [spec("x", [])]),
        "fixed": (lambda x: {"y": tf.reduce_sum(x, axis=1)}, [spec("x", [2, 3])]),
    }
    for name in DTYPES:
        functions[name] = (lambda x: {"y": tf.identity(x)}, [spec("x", [None], tf.as_dtype(name))])
    save_v2(folder, functions)


def vocabulary(folder: Path) -> None:
    words = folder.parent / "words.txt"
    words.parent.mkdir(parents=True, exist_ok=True)
    words.write_text("zero\none\ntwo\n")
    module = tf.Module()
    initializer = tf.lookup.TextFileInitializer(
        str(words), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
    )
    module.table = tf.lookup.StaticHashTable(initializer, -1)
    functions = {"serving_default": (lambda words: {"number": module.table.lookup(words)}, [spec("words", [None], tf.string)])}
    save_v2(folder, functions, module)
    words.unlink()


def classifier(folder: Path) -> None:
    with v1.Graph().as_default(), v1.Session() as session:
        serialized = v1.placeholder(tf.string, [None], name="tf_example")
        names = {"petal": v1.FixedLenFeature([2], tf.float32), "name": v1.FixedLenFeature([], tf.string, "")}
        parsed = v1.parse_example(serialized, {**names, "count": v1.FixedLenFeature([], tf.int64, 1)})
        weights = v1.Variable([[-2.0, 0.5, 1.0], [-1.0, 0.0, 1.5]], name="weights")
        scores = tf.nn.softmax(tf.matmul(parsed["petal"], weights), name="scores")
        rows = tf.shape(scores)[0]
        classes = tf.tile(tf.constant([FLOWERS]), tf.stack([rows, 1]), name="classes")
        first = tf.reduce_sum(parsed["petal"], axis=1, name="sum")
        labelled = signature(CLASSIFY, {"inputs": serialized}, {"classes": classes, "scores": scores})
        save_v1(
            folder,
            session,
            {
                "serving_default": labelled,
                "classes_only": signature(CLASSIFY, {"inputs": serialized}, {"classes": classes}),
                "classify_flat": signature(CLASSIFY, {"inputs": serialized}, {"scores": first}),
                "classify_short": signature(CLASSIFY, {"inputs": serialized}, {"scores": scores[:1]}),
                "regress": signature(REGRESS, {"inputs": serialized}, {"outputs": first}),
                "regress_wide": signature(REGRESS, {"inputs": serialized}, {"outputs": scores}),
                "regress_short": signature(REGRESS, {"inputs": serialized}, {"outputs": first[:1]}),
                "count": signature(REGRESS, {"inputs": serialized}, {"outputs": tf.cast(parsed["count"], tf.float32)}),
                "name": signature(PREDICT, {"inputs": serialized}, {"name": parsed["name"]}),
            },
        )


def iris(folder: Path) -> None:
    centres = tf.constant([[5.0, 3.4, 1.5, 0.2], [5.9, 2.8, 4.3, 1.3], [6.6, 3.0, 5.6, 2.0]])
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 4], name="x")
        weights = tf.constant(2 * centres.numpy().T)
        scores = tf.matmul(x, weights) - tf.constant((centres.numpy() ** 2).sum(axis=1))
        answers = {"label": tf.argmax(scores, axis=1), "probabilities": tf.nn.softmax(scores)}
        save_v1(folder, session, {"serving_default": signature(PREDICT, {"x": x}, answers)})


def keras_dense(folder: Path) -> None:
    model = tf.keras.Sequential([tf.keras.Input([3], name="features"), tf.keras.layers.Dense(2, kernel_initializer="ones", name="twice")])
    model.export(str(folder), verbose=False)


def slow(folder: Path) -> None:
    weights = tf.fill([256, 256], 1.0 / 256)

    def spin(rounds: Any) -> dict[str, Any]:
        most = tf.reduce_max(tf.concat([rounds, [0]], 0))
        _, state = tf.while_loop(lambda i, _: i < most, lambda i, m: (i + 1, tf.matmul(m, weights)), (tf.constant(0, tf.int64), weights))
        return {"done": rounds + tf.cast(tf.reduce_sum(state) * 0.0, tf.int64)}

    save_v2(folder, {"serving_default": (spin, [spec("rounds", [None], tf.int64)])})


def train_only(folder: Path) -> None:
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None], name="x")
        save_v1(folder, session, {"serving_default": signature(PREDICT, {"x": x}, {"y": x * v1.Variable(3.0)})}, tags=("train", "gpu"))


def missing_op(folder: Path) -> None:
    half_plus_three(folder)
    file = folder / "saved_model.pb"
    file.write_bytes(file.read_bytes().replace(b"ParseExampleV2", b"ParseExampleV9"))


def resnet(folder: Path) -> None:
    """Random weights: 25 million parameters, some 100 MB."""
    tf.keras.utils.set_random_seed(0)
    tf.keras.applications.ResNet50(weights=None).export(str(folder), verbose=False)


BUILDERS: Mapping[str, Callable[[Path], None]] = {
    each.__name__: each
    for each in (
        half_plus_two,
        half_plus_three,
        half_plus_two_tf2,
        tagged,
        image,
        unknown_rank,
        picky,
        identities,
        vocabulary,
        classifier,
        iris,
        keras_dense,
        slow,
        train_only,
        missing_op,
        resnet,
    )
}


if __name__ == "__main__":
    from tests.models.savedmodels import version_folder

    for wanted in sys.argv[2:]:
        BUILDERS[wanted](version_folder(Path(sys.argv[1]), wanted))
