// The page: starts the one worker and hands what it says to the server that prints.

const send = (message) => fetch('/report', { method: 'POST', body: JSON.stringify(message) });

const worker = new Worker(`worker.js${location.search}`);
let sent = Promise.resolve();
worker.onmessage = ({ data }) => {
  sent = sent.then(() => send(data));
};
worker.onerror = (event) => send({ type: 'failed', message: `${event.message} (${event.filename}:${event.lineno})` });
