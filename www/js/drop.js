// Files dropped on an element.

/**
 * Tells `accept` the files that are dropped on `element`, which has the class `dropping` while they
 * hover. Of elements inside each other the innermost takes them.
 */
export function acceptDrops(element, accept) {
  const ours = (event) => !event.defaultPrevented && Boolean(event.dataTransfer?.types.includes('Files'));
  const over = (event) => {
    const taken = ours(event);
    element.classList.toggle('dropping', taken);
    if (taken) event.preventDefault();
  };
  element.addEventListener('dragenter', over);
  element.addEventListener('dragover', over);
  element.addEventListener('dragleave', (event) => {
    if (!element.contains(event.relatedTarget)) element.classList.remove('dropping');
  });
  element.addEventListener('drop', (event) => {
    element.classList.remove('dropping');
    if (!ours(event)) return;
    event.preventDefault();
    const files = [...event.dataTransfer.files];
    if (files.length > 0) accept(files);
  });
}
