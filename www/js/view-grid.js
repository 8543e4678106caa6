// The cells of one operand: a table of inputs, at most 15 × 15, moved through by keyboard.

import { h, setAttribute, show } from './dom.js';
import { strings } from './strings.js';
import { parseTable } from './matrix-input.js';
import { GRID_MAX } from './state.js';

/** `actions.setCell(operand, row, col, text)`, `actions.setCells(operand, cells)`. */
export function createGrid(operand, actions) {
  const body = h('tbody');
  const table = h('table', { id: `grid-${operand}`, class: 'grid', 'aria-label': strings.multiply.operand[operand] }, body);
  let inputs = [];
  let shape = '';

  table.addEventListener('input', ({ target }) => {
    actions.setCell(operand, Number(target.dataset.row), Number(target.dataset.col), target.value);
  });
  table.addEventListener('keydown', (event) => move(event, inputs));
  table.addEventListener('paste', (event) => paste(event, operand, actions));
  table.addEventListener('focusin', ({ target }) => target.select?.());

  return {
    element: h('div', { class: 'scroll grid-scroll' }, table),
    /** `wrong`: the ids of the cells that are no numbers; the message is about the one `described`. */
    update({ rows, cols }, cells, wrong, described) {
      if (shape !== `${rows},${cols}`) {
        shape = `${rows},${cols}`;
        inputs = createCells(operand, rows, cols);
        body.replaceChildren(...inputs.map((row) => h('tr', {}, ...row.map((input) => h('td', {}, input)))));
      }
      inputs.forEach((row, i) =>
        row.forEach((input, j) => {
          const text = cells[`${i},${j}`] ?? '';
          if (input.value !== text) input.value = text;
          const bad = wrong.has(input.id);
          setAttribute(input, 'aria-invalid', bad ? 'true' : null);
          setAttribute(input, 'aria-describedby', input.id === described ? `problem-${operand}-message` : null);
        }),
      );
    },
    show: (visible) => show(table.parentElement, visible),
  };
}

function createCells(operand, rows, cols) {
  return Array.from({ length: rows }, (_, row) =>
    Array.from({ length: cols }, (_, col) =>
      h('input', {
        id: `cell-${operand}-${row}-${col}`,
        'data-testid': `cell-${operand}-${row}-${col}`,
        'data-row': row,
        'data-col': col,
        'aria-label': strings.multiply.cell(operand, row, col),
        type: 'text',
        inputmode: 'text',
        autocomplete: 'off',
        spellcheck: 'false',
        placeholder: '0',
      }),
    ),
  );
}

/** Arrow keys move between cells; left and right only from the end of the text. */
function move(event, inputs) {
  const input = event.target;
  if (input.tagName !== 'INPUT' || event.altKey || event.ctrlKey || event.metaKey) return;
  const row = Number(input.dataset.row);
  const col = Number(input.dataset.col);
  const all = input.selectionStart === 0 && input.selectionEnd === input.value.length;
  const atStart = all || (input.selectionStart === 0 && input.selectionEnd === 0);
  const atEnd = all || input.selectionStart === input.value.length;
  const target = {
    ArrowUp: () => inputs[row - 1]?.[col],
    ArrowDown: () => inputs[row + 1]?.[col],
    Enter: () => inputs[row + 1]?.[col] ?? inputs[0][col + 1],
    ArrowLeft: () => atStart && inputs[row][col - 1],
    ArrowRight: () => atEnd && inputs[row][col + 1],
  }[event.key]?.();
  if (target) {
    event.preventDefault();
    target.focus();
  }
}

/** Pasted tables fill from the cell that they are pasted into; one value is pasted as usual. */
function paste(event, operand, actions) {
  const table = parseTable(event.clipboardData?.getData('text') ?? '');
  if (table.length === 1 && table[0].length === 1) return;
  event.preventDefault();
  const row = Number(event.target.dataset.row);
  const col = Number(event.target.dataset.col);
  const cells = {};
  table.slice(0, GRID_MAX - row).forEach((line, i) =>
    line.slice(0, GRID_MAX - col).forEach((text, j) => {
      cells[`${row + i},${col + j}`] = text;
    }),
  );
  actions.setCells(operand, cells);
}
