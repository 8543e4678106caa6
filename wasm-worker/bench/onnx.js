// An ONNX model that is one MatMul, written as its protocol buffer: tag, then a number or a length and bytes.

function onnxMatMul(dtype, n) {
  const varint = (value) => {
    const bytes = [];
    for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
    return [...bytes, value];
  };
  const number = (field, value) => [...varint(field * 8), ...varint(value)];
  const bytes = (field, value) => [...varint(field * 8 + 2), ...varint(value.length), ...value];
  const text = (field, value) => bytes(field, [...new TextEncoder().encode(value)]);
  // TensorProto.DataType
  const type = { f32: 1, f64: 11 }[dtype];
  const dimension = bytes(1, number(1, n));
  const tensor = bytes(1, [...number(1, type), ...bytes(2, [...dimension, ...dimension])]);
  const value = (name) => [...text(1, name), ...bytes(2, tensor)];
  const node = [...text(1, 'a'), ...text(1, 'b'), ...text(2, 'c'), ...text(4, 'MatMul')];
  const graph = [...bytes(1, node), ...text(2, 'product'), ...bytes(11, value('a')), ...bytes(11, value('b')), ...bytes(12, value('c'))];
  // ir_version, graph, opset_import
  return new Uint8Array([...number(1, 8), ...bytes(7, graph), ...bytes(8, number(2, 13))]);
}
