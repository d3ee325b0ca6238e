"""The layers of a TFLite file, read off the file alone, as `Layer.key` names them."""

import math

from ai_edge_litert import schema_py_generated as schema

_NAMES = {
    getattr(schema.BuiltinOperator, name): name
    for name in dir(schema.BuiltinOperator)
    if name.isupper()
}
_ACTIVATIONS = {0: "", 1: " relu", 3: " relu6"}
_OF_ONE_INPUT = {
    "LOGISTIC": "sigmoid",
    "RELU": "relu",
    "RELU6": "relu6",
    "HARD_SWISH": "hard_swish",
    "MEAN": "global_avg_pool",
    "REDUCE_MAX": "global_max_pool",
}
_POOLS = {"MAX_POOL_2D": "max_pool", "AVERAGE_POOL_2D": "avg_pool"}
_OF_TWO_INPUTS = {"ADD": "add", "MUL": "multiply"}


def keys(content):
    """Returns a key for every operator, in the file's order."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    (subgraph,) = model.subgraphs
    return [_key(model, subgraph, operator) for operator in subgraph.operators]


def _key(model, subgraph, operator):
    code = model.operatorCodes[operator.opcodeIndex]
    name = _NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]
    options = operator.builtinOptions
    tensors = [subgraph.tensors[i] for i in operator.inputs]
    read = [t for t in tensors if model.buffers[t.buffer].data is None]
    (output,) = (subgraph.tensors[i] for i in operator.outputs)
    inputs = " ".join(_shape(tensor) for tensor in read)
    activation = _ACTIVATIONS[getattr(options, "fusedActivationFunction", 0)]
    if name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        return _convolution(name, tensors, inputs, options) + activation
    if name in _POOLS:
        window = f"k{options.filterHeight} s{options.strideH}"
        return f"{_POOLS[name]} {inputs} {window}{activation}"
    if name in _OF_TWO_INPUTS:
        # Weights of a normalisation that is none of a convolution's.
        constant = " constant" if len(read) == 1 else ""
        return f"{_OF_TWO_INPUTS[name]} {inputs}{constant}{activation}"
    if name in _OF_ONE_INPUT:
        return f"{_OF_ONE_INPUT[name]} {inputs}"
    if name == "CONCATENATION":
        axis = options.axis - 1 if options.axis > 0 else options.axis + len(output.shape) - 1
        return f"concat {inputs}" + (f" axis{axis}" if axis else "")
    if name in ("RESHAPE", "RESIZE_NEAREST_NEIGHBOR"):
        op = "reshape" if name == "RESHAPE" else "upsample"
        return f"{op} {inputs}->{_shape(output)}"
    return f"{name} {inputs}"


def _convolution(name, tensors, inputs, options):
    x, kernel = tensors[:2]
    height, width = kernel.shape[1:3]
    window = f"k{height}" if height == width else f"k{height}x{width}"
    window += f" s{options.strideH}"
    dilation = f" d{options.dilationHFactor}" if options.dilationHFactor > 1 else ""
    if name == "DEPTHWISE_CONV_2D":
        return f"depthwise_conv2d {inputs} {window}{dilation}"
    groups = x.shape[3] // kernel.shape[3]
    grouped = f" g{groups}" if groups > 1 else ""
    return f"conv2d {inputs}->{kernel.shape[0]} {window}{grouped}{dilation}"


def _shape(tensor):
    """Without the batch of one."""
    assert tensor.shape[0] == 1 or math.prod(tensor.shape) == 0
    return "x".join(map(str, tensor.shape[1:]))
