// The form that submits a product.

import { card, h, problemBox, setAttribute, setText, show } from './dom.js';
import { bytes } from './format.js';
import { strings } from './strings.js';
import { DIMENSION_MAX, isFixed, shapeOf, sourceOf } from './state.js';
import { elementBytes } from './matrix-input.js';
import { createGrid } from './view-grid.js';

const text = strings.multiply;
const PRESETS = [2, 3, 4, 10, 50, 100, 1000, 'custom'];

export function mountMultiply(root, actions) {
  const presets = new Map(PRESETS.map((preset) => [preset, presetButton(preset, actions)]));
  const dimensions = Object.fromEntries(['rows', 'inner', 'cols'].map((name) => [name, dimensionField(name, actions)]));
  const operands = Object.fromEntries(['a', 'b'].map((name) => [name, operandPanel(name, actions)]));
  const dtype = h(
    'select',
    { id: 'dtype', onchange: () => actions.setOption('dtype', dtype.value) },
    ...Object.entries(text.dtypes).map(([value, label]) => h('option', { value }, label)),
  );
  const reproducible = h('input', {
    id: 'reproducible',
    type: 'checkbox',
    'aria-describedby': 'reproducible-hint',
    onchange: () => actions.setOption('reproducible', reproducible.checked),
  });
  const jobName = h('input', {
    id: 'job-name',
    type: 'text',
    maxlength: 100,
    autocomplete: 'off',
    oninput: () => actions.setOption('name', jobName.value),
  });
  const problem = problemBox('problem-form');
  const hint = h('p', { class: 'quiet' }, text.gridHint);
  const status = h('p', { id: 'submission-status', class: 'quiet', role: 'status' });
  const progress = h('progress', { id: 'submission-progress', max: 100, hidden: true, 'aria-label': text.running });
  const run = h('button', { id: 'run', type: 'submit', class: 'primary' }, text.run);

  const form = h(
    'form',
    { id: 'multiply-form', novalidate: true },
    h('div', { class: 'presets', role: 'group', 'aria-label': text.presets }, ...presets.values()),
    h('div', { class: 'dimensions' }, ...Object.values(dimensions).map((field) => field.element)),
    h(
      'div',
      { class: 'row' },
      h('button', { id: 'fill-random', type: 'button', onclick: actions.fillRandom }, text.fillRandom),
      h('button', { id: 'clear', type: 'button', onclick: actions.clearCells }, text.clear),
    ),
    h('div', { class: 'operands' }, operands.a.element, h('span', { class: 'times', 'aria-hidden': 'true' }, '×'), operands.b.element),
    hint,
    h(
      'div',
      { class: 'options' },
      h('label', { class: 'field' }, h('span', {}, text.dtype), dtype),
      h('label', { class: 'field grow' }, h('span', {}, text.jobName), jobName),
      h(
        'div',
        { class: 'field' },
        h('label', { class: 'check' }, reproducible, ' ', text.reproducible),
        h('span', { id: 'reproducible-hint', class: 'quiet' }, text.reproducibleHint),
      ),
    ),
    problem.element,
    h('div', { class: 'row' }, run, h('div', { class: 'grow' }, status, progress)),
  );
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    actions.run();
  });
  root.append(card('multiply', text.heading, form));

  return (state) => {
    const { form: draft, submission } = state;
    const busy = submission.phase !== 'idle';
    const field = submission.problem?.field;
    const operand = submission.problem?.operand;

    for (const [preset, button] of presets) setAttribute(button, 'aria-pressed', draft.preset === preset);
    for (const [name, part] of Object.entries(dimensions)) {
      part.update(draft[name], isFixed(draft, name), field === `dim-${name}` ? submission.problem : null);
    }
    for (const name of ['a', 'b']) {
      operands[name].update(draft, busy, operand === name && !field?.startsWith('dim-') ? submission.problem : null, field);
    }
    problem.update(field || operand ? null : submission.problem);
    show(hint, sourceOf(draft, 'a') === 'cells' || sourceOf(draft, 'b') === 'cells');
    dtype.value = draft.dtype;
    reproducible.checked = draft.reproducible;
    if (document.activeElement !== jobName) jobName.value = draft.name;
    run.disabled = busy;
    show(progress, submission.phase === 'uploading' || submission.phase === 'generating');
    progress.value = submission.percent;
    setText(status, statusText(submission));
  };
}

function statusText({ phase, operand, percent }) {
  if (phase === 'generating') return text.generating(operand);
  if (phase === 'uploading') return text.uploading(operand, percent);
  return phase === 'submitting' ? text.running : '';
}

function presetButton(preset, actions) {
  const label = preset === 'custom' ? text.custom : text.square(preset);
  return h('button', { id: `preset-${preset}`, type: 'button', class: 'chip', onclick: () => actions.setPreset(preset) }, label);
}

function dimensionField(name, actions) {
  const problem = problemBox(`problem-${name}`);
  const input = h('input', {
    id: `dim-${name}`,
    type: 'number',
    min: 1,
    max: DIMENSION_MAX,
    step: 1,
    required: true,
    oninput: () => actions.setDimension(name, input.value === '' ? NaN : Number(input.value)),
  });
  return {
    element: h('div', { class: 'field' }, h('label', { for: `dim-${name}` }, text[name]), input, problem.element),
    update(value, fixed, found) {
      if (Number.isFinite(value) && Number(input.value) !== value) input.value = value;
      input.readOnly = fixed;
      setAttribute(input, 'aria-invalid', found ? 'true' : null);
      setAttribute(input, 'aria-describedby', found ? `problem-${name}-message` : null);
      problem.update(found);
    },
  };
}

function operandPanel(name, actions) {
  const grid = createGrid(name, actions);
  const shape = h('span', { id: `shape-${name}`, class: 'shape' });
  const about = h('p', { id: `about-${name}`, class: 'about' });
  const problem = problemBox(`problem-${name}`);
  const file = h('input', {
    id: `file-${name}`,
    type: 'file',
    accept: '.npy,.csv,.mtx',
    class: 'visually-hidden',
    onchange: () => {
      if (file.files[0]) actions.setFile(name, file.files[0]);
      file.value = '';
    },
  });
  const remove = h('button', { id: `remove-file-${name}`, type: 'button', class: 'small', onclick: () => actions.removeFile(name) }, text.removeFile);
  const element = h(
    'fieldset',
    { id: `operand-${name}`, class: 'operand' },
    h('legend', {}, text.operand[name], ' ', shape),
    grid.element,
    about,
    problem.element,
    h('div', { class: 'row file-row' }, file, h('label', { for: `file-${name}`, class: 'button small' }, text.chooseFile), remove, h('span', { class: 'quiet' }, text.dropHint)),
  );
  acceptDrops(element, (dropped) => actions.setFile(name, dropped));

  return {
    element,
    update(form, busy, found, field) {
      const { rows, cols } = shapeOf(form, name);
      const source = sourceOf(form, name);
      const valid = Number.isInteger(rows) && Number.isInteger(cols) && rows > 0 && cols > 0;
      setText(shape, valid ? text.shape(rows, cols) : '');
      setAttribute(element, 'data-source', source);
      grid.show(source === 'cells' && valid);
      if (source === 'cells' && valid) grid.update({ rows, cols }, form[name].cells, field);
      show(about, source !== 'cells');
      setText(about, aboutText(form, name, source, rows * cols));
      show(remove, source === 'file');
      element.disabled = busy;
      problem.update(found);
    },
  };
}

function aboutText(form, name, source, elements) {
  if (source === 'file') {
    const { file } = form[name];
    const { rows, cols, dtype } = file.matrix;
    return text.file(file.name, text.shape(rows, cols), dtype);
  }
  return Number.isFinite(elements) ? text.random(bytes(elements * elementBytes(form.dtype)), form[name].seed?.[0]) : '';
}

function acceptDrops(element, accept) {
  const over = (event) => {
    event.preventDefault();
    element.classList.add('dropping');
  };
  element.addEventListener('dragenter', over);
  element.addEventListener('dragover', over);
  element.addEventListener('dragleave', (event) => {
    if (!element.contains(event.relatedTarget)) element.classList.remove('dropping');
  });
  element.addEventListener('drop', (event) => {
    event.preventDefault();
    element.classList.remove('dropping');
    const [dropped] = event.dataTransfer.files;
    if (dropped) accept(dropped);
  });
}
