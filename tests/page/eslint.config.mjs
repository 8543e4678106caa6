// What the page's modules are held to beyond their types.

import js from '@eslint/js';

/** What turns text into markup or code; names of devices and files are only ever text nodes. */
const markup = ['innerHTML', 'outerHTML', 'insertAdjacentHTML', 'srcdoc'].map((property) => ({
  selector: `MemberExpression[property.name='${property}']`,
  message: 'Text from elsewhere must not become markup: use h() of dom.js.',
}));

export default [
  js.configs.recommended,
  {
    files: ['www/js/*.js', 'www/sw.js'],
    languageOptions: { ecmaVersion: 2022, sourceType: 'module' },
    rules: {
      // The type checker knows what is global in a page.
      'no-undef': 'off',
      eqeqeq: 'error',
      'no-eval': 'error',
      'no-implied-eval': 'error',
      'no-unused-vars': ['error', { ignoreRestSiblings: true }],
      'no-var': 'error',
      'prefer-const': 'error',
      'no-restricted-syntax': ['error', ...markup],
    },
  },
];
