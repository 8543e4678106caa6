// Jobs as command lines and as NumPy code.

import assert from 'node:assert/strict';
import test from 'node:test';

import { commandLine, numpyCode, quoted } from '../../www/js/snippets.js';

const origin = 'http://10.0.0.4:8080';

test('words of a shell are quoted when they must be', () => {
  assert.equal(quoted('http://10.0.0.4:8080/api'), 'http://10.0.0.4:8080/api');
  assert.equal(quoted("a b'c"), "'a b'\\''c'");
  assert.equal(quoted('x?y&z'), "'x?y&z'");
});

test('a job of somebody else is fetched, an own one is computed again', () => {
  assert.equal(commandLine('1f', undefined, origin), `gemmesh result 1f -o c.npy --node ${origin}`);
  const own = commandLine('1f', { a: 'aa', b: 'bb', dtype: 'f32', reproducible: true }, origin);
  assert.equal(
    own,
    `curl -o a.npy '${origin}/api/matrices/aa?format=npy'\ncurl -o b.npy '${origin}/api/matrices/bb?format=npy'\n` +
      `gemmesh multiply a.npy b.npy -o c.npy --node ${origin} --dtype f32 --reproducible`,
  );
});

test('NumPy code compares with the product when the operands are known', () => {
  const own = numpyCode('1f', { a: [[1, 'NaN'], [3, '12345678901234567890']], b: 'bb' }, origin);
  assert.match(own, /a = np\.array\(\[\[1, float\("NaN"\)\],\n {14}\[3, 12345678901234567890\]\]\)\n/);
  assert.match(own, /b = get\("\/api\/matrices\/bb\?format=npy"\)\n/);
  assert.match(own, /np\.allclose\(a @ b, c, equal_nan=True\)/);
  assert.doesNotMatch(numpyCode('1f', undefined, origin), /allclose/);
});
