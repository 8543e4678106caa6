// A job as a command line and as NumPy code. Pure functions.

/** A text as one word of a POSIX shell. */
export function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** A number of the API as Python; beyond 2^53 and where it is no number it is a text there. */
function python(value) {
  if (typeof value === 'number' || /^[+-]?\d+$/.test(value)) return String(value);
  return `float("${value}")`;
}

/** Lines of Python that put operand `name` into a variable; null when the page does not know it. */
function operand(name, value, key) {
  if (Array.isArray(value)) {
    const rows = value.map((row) => `[${row.map(python).join(', ')}]`);
    return `${name} = np.array([${rows.join(',\n' + ' '.repeat(name.length + 13))}])`;
  }
  return typeof value === 'string' ? `${name} = get("/api/matrices/${value}?format=npy${key}")` : null;
}

/** What a link to something of a private job ends with. */
const keyOf = (product) => (product?.token ? `&token=${product.token}` : '');

/**
 * The commands that get the result of a job from the node at `origin`; when `product` is known and its
 * operands are matrices, the ones that compute it again, too.
 */
export function commandLine(job, product, origin) {
  const lines = [];
  if (typeof product?.a === 'string' && typeof product?.b === 'string') {
    for (const name of ['a', 'b']) lines.push(`curl -o ${name}.npy ${quoted(`${origin}/api/matrices/${product[name]}?format=npy${keyOf(product)}`)}`);
    const options = [`--node ${quoted(origin)}`, product.dtype && `--dtype ${product.dtype}`, product.mode && `--mode ${product.mode}`, product.reproducible && '--reproducible'];
    lines.push(`gemmesh multiply a.npy b.npy -o c.npy ${options.filter(Boolean).join(' ')}`);
  } else {
    lines.push(`gemmesh result ${job} -o c.npy --node ${quoted(origin)}${product?.token ? ` --token ${product.token}` : ''}`);
  }
  return lines.join('\n');
}

/** NumPy code that gets the result of a job, and compares it with `a @ b` when `product` is known. */
export function numpyCode(job, product, origin) {
  const operands = product ? ['a', 'b'].map((name) => operand(name, product[name], keyOf(product))) : [];
  const known = operands.length === 2 && operands.every(Boolean);
  return [
    'import io, urllib.request',
    'import numpy as np',
    '',
    'def get(path):',
    `    with urllib.request.urlopen("${origin}" + path) as answer:`,
    '        return np.load(io.BytesIO(answer.read()))',
    '',
    ...(known ? operands : []),
    `c = get("/api/jobs/${job}/result?format=npy${keyOf(product)}")`,
    known ? 'print(np.allclose(a @ b, c, equal_nan=True))' : 'print(c.shape, c.dtype)',
    '',
  ].join('\n');
}
