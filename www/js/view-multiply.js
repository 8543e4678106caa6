// The form that submits a product.

import { card, h, keyed, problemBox, setAttribute, setText, show } from './dom.js';
import { bytes } from './format.js';
import { strings } from './strings.js';
import { DIMENSION_MAX, isFixed, shapeOf, sourceOf } from './state.js';
import { badCells, elementBytes } from './matrix-input.js';
import { createGrid } from './view-grid.js';
import { acceptDrops } from './drop.js';
import { needsOf } from './outlook.js';
import { fillMatrix } from './view-matrix.js';

const text = strings.multiply;
/** Columns of an operand's cells that fit beside the other operand. */
const SIDE_BY_SIDE_MAX = 6;
/** Below this a prediction says nothing to a person. */
const MOMENT_S = 0.005;
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
  const mode = h(
    'select',
    { id: 'mode', onchange: () => actions.setOption('mode', mode.value) },
    ...Object.entries(text.modes).map(([value, label]) => h('option', { value }, label)),
  );
  const jobName = h('input', {
    id: 'job-name',
    type: 'text',
    maxlength: 100,
    autocomplete: 'off',
    oninput: () => actions.setOption('name', jobName.value),
  });
  const problem = problemBox('problem-form');
  const hint = h('p', { class: 'quiet' }, text.gridHint);
  const needs = h('p', { id: 'needs', class: 'quiet' });
  const predicted = h('p', { id: 'predicted', class: 'quiet' });
  const leftOut = h('ul', { id: 'left-out', class: 'quiet plain' });
  const status = h('p', { id: 'submission-status', class: 'quiet', role: 'status' });
  const progress = h('progress', { id: 'submission-progress', max: 100, hidden: true, 'aria-label': text.running });
  const run = h('button', { id: 'run', type: 'submit', class: 'primary' }, text.run);

  const panels = h('div', { class: 'operands' }, operands.a.element, h('span', { class: 'times', 'aria-hidden': 'true' }, '×'), operands.b.element);

  const form = h(
    'form',
    { id: 'multiply-form', novalidate: true },
    h('div', { class: 'presets', role: 'group', 'aria-label': text.presets }, ...presets.values()),
    h('div', { class: 'dimensions' }, ...Object.values(dimensions).flatMap((field) => [field.element, field.problem])),
    h(
      'div',
      { class: 'row' },
      h('button', { id: 'fill-random', type: 'button', onclick: actions.fillRandom }, text.fillRandom),
      h('button', { id: 'clear', type: 'button', onclick: actions.clearCells }, text.clear),
    ),
    panels,
    hint,
    h(
      'div',
      { class: 'options' },
      h('label', { class: 'field' }, h('span', {}, text.dtype), dtype),
      h('label', { class: 'field' }, h('span', {}, text.mode), mode),
      h('label', { class: 'field grow' }, h('span', {}, text.jobName), jobName),
      h(
        'div',
        { class: 'field' },
        h('label', { class: 'check' }, reproducible, ' ', text.reproducible),
        h('span', { id: 'reproducible-hint', class: 'quiet' }, text.reproducibleHint),
      ),
    ),
    problem.element,
    h('div', { class: 'outlook' }, needs, predicted, leftOut),
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
    setAttribute(panels, 'data-wide', hasWideCells(draft));
    for (const name of ['a', 'b']) {
      operands[name].update(draft, busy, operand === name && !field?.startsWith('dim-') ? submission.problem : null, field);
    }
    problem.update(field || operand ? null : submission.problem);
    show(hint, sourceOf(draft, 'a') === 'cells' || sourceOf(draft, 'b') === 'cells');
    dtype.value = draft.dtype;
    mode.value = draft.mode;
    reproducible.checked = draft.reproducible;
    if (document.activeElement !== jobName) jobName.value = draft.name;
    // Not `disabled`, which would take the focus away.
    setAttribute(run, 'aria-disabled', busy ? 'true' : null);
    show(progress, submission.phase === 'uploading' || submission.phase === 'generating');
    progress.value = submission.percent;
    setText(status, statusText(submission));
    updateOutlook(needsOf(draft, state.devices), state.outlook);
  };

  function updateOutlook(known, outlook) {
    show(needs, known !== null);
    show(predicted, known !== null);
    const left = (known && outlook?.plan?.filter(({ tiles }) => tiles === 0)) || [];
    show(leftOut, left.length > 0);
    keyed(leftOut, left, ({ device }) => device, () => h('li'), (item, part) => setText(item, strings.job.leftOut(part, outlook.predicted_seconds)));
    if (!known) return;
    setText(needs, text.needs(known));
    if (outlook && outlook.predicted_seconds !== null) {
      const helpers = outlook.plan.filter(({ tiles }) => tiles > 0).length;
      setText(predicted, text.predicted(outlook.predicted_seconds, helpers, outlook.alone_seconds));
    } else setText(predicted, known.seconds === null ? text.nobody : known.seconds < MOMENT_S ? text.moment : text.atLeast(known.seconds, known.devices));
  }
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
    element: h('div', { class: 'field' }, h('label', { for: `dim-${name}` }, text[name]), input),
    problem: problem.element,
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
  const preview = h('tbody');
  const caption = h('caption');
  const previewTable = h(
    'div',
    { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': text.previewLabel(name), hidden: true },
    h('table', { id: `preview-${name}`, class: 'result-table' }, caption, preview),
  );
  const problem = problemBox(`problem-${name}`);
  const file = h('input', {
    id: `file-${name}`,
    type: 'file',
    multiple: true,
    accept: '.npy,.csv,.mtx',
    class: 'visually-hidden',
    onchange: () => {
      if (file.files.length > 0) actions.setFiles(name, [...file.files]);
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
    previewTable,
    problem.element,
    h('div', { class: 'row file-row' }, file, h('label', { for: `file-${name}`, class: 'button small' }, text.chooseFile), remove, h('span', { class: 'quiet' }, text.dropHint)),
  );
  acceptDrops(element, (dropped) => actions.setFiles(name, dropped));
  let previewed = null;

  return {
    element,
    update(form, busy, found, field) {
      const { rows, cols } = shapeOf(form, name);
      const source = sourceOf(form, name);
      const valid = Number.isInteger(rows) && Number.isInteger(cols) && rows > 0 && cols > 0;
      element.disabled = busy;
      problem.update(found);
      // While a number is being typed the panel stays as it was.
      if (!valid) return;
      setText(shape, text.shape(rows, cols));
      setAttribute(element, 'data-source', source);
      grid.show(source === 'cells');
      if (source === 'cells') grid.update({ rows, cols }, form[name].cells, wrongCells(form, name, field), field);
      show(about, source !== 'cells');
      setText(about, aboutText(form, name, source, rows * cols));
      show(remove, source === 'file');
      updatePreview(form[name].file);
    },
  };

  function updatePreview(file) {
    const values = file?.preview ?? null;
    show(previewTable, values !== null);
    if (values === previewed) return;
    previewed = values;
    if (values === null) return;
    const { rows, cols } = file.matrix;
    fillMatrix(preview, values, { rows, cols });
    setText(caption, text.preview(values.length === rows && values[0].length === cols));
  }
}

/** Cells that are too many to stand side by side. */
function hasWideCells(form) {
  return ['a', 'b'].some((name) => sourceOf(form, name) === 'cells' && shapeOf(form, name).cols > SIDE_BY_SIDE_MAX);
}

/** Cells to mark: once one is refused, all that would be. */
function wrongCells(form, name, field) {
  return field?.startsWith('cell-') ? new Set(badCells(form, name)) : new Set();
}

function aboutText(form, name, source, elements) {
  if (source === 'file') {
    const { file } = form[name];
    const { rows, cols, dtype } = file.matrix;
    return text.file(file.name, text.shape(rows, cols), dtype);
  }
  return Number.isFinite(elements) ? text.random(bytes(elements * elementBytes(form.dtype)), form[name].seed?.[0]) : '';
}
