// The node's HTTP interface. Every failure becomes an `ApiProblem` with a message and a hint.

import { strings } from './strings.js';

/** What went wrong, for people; `code` is the node's. */
export class ApiProblem extends Error {
  constructor({ code = 'network', message, hint }) {
    super(message);
    this.code = code;
    this.hint = hint;
  }
}

const TYPES = {
  npy: 'application/x-npy',
  csv: 'text/csv',
  mtx: 'text/x-matrix-market',
};

/** The format that a file name ends with, or null. */
export function fileFormat(name) {
  const ending = /\.([a-z]+)$/i.exec(name)?.[1].toLowerCase();
  return ending in TYPES ? ending : null;
}

/** All jobs that the node knows. */
export async function jobs() {
  return (await request('/api/jobs')).json();
}

/** One job, now or as soon as it has ended, at most `wait` seconds later. */
export async function job(id, wait = 0) {
  return (await request(`/api/jobs/${id}${wait ? `?wait=${wait}` : ''}`)).json();
}

/** The tiles of a job that became durable after those of the answer whose `next` is `after`. */
export async function tiles(id, after) {
  return (await request(`/api/jobs/${id}/tiles?after=${after}`)).json();
}

/** All devices of the mesh. */
export async function nodes() {
  return (await request('/api/nodes')).json();
}

/** How fast the node's links are: `{node, links: [{device, bytes_per_second}]}`. */
export async function links() {
  return (await request('/api/links')).json();
}

/** Submits a product; returns `{job, token}`. */
export async function submit(product) {
  const response = await request('/api/jobs', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(product),
  });
  return response.json();
}

/** What a link to something private ends with. */
const key = (token, sign) => (token ? `${sign}token=${token}` : '');

/** Cancels a job; a private one with its token. */
export async function cancel(id, token) {
  await request(`/api/jobs/${id}${key(token, '?')}`, { method: 'DELETE' });
}

/** Where the result of a job is; of a batch, that of the product `index`; of a private one, for who has its token. */
export function resultUrl(id, format, index = null, token = null) {
  return `/api/jobs/${id}/result?format=${format}${index === null ? '' : `&index=${index}`}${key(token, '&')}`;
}

/** Where a matrix is. */
export function matrixUrl(id, format) {
  return `/api/matrices/${id}?format=${format}`;
}

/** A window of a matrix in at most `height` × `width` cells. */
export async function picture(id, { row, col, rows, cols }, height, width, token) {
  const query = new URLSearchParams({ row, col, rows, cols, height, width });
  return (await request(`/api/matrices/${id}/picture?${query}${key(token, '&')}`)).json();
}

/** The URLs of the node's page and their QR codes. */
export async function joining() {
  return (await request('/api/join')).json();
}

/** The result of a job as nested arrays. */
export async function resultJson(id, token) {
  return (await request(resultUrl(id, 'json', null, token))).json();
}

/**
 * The first rows of the CSV at `url` as texts, read from its start and no further: at most `rows`
 * rows, at most `cols` cells of each, at most 4 MiB.
 */
export async function corner(url, rows, cols) {
  const abort = new AbortController();
  const response = await request(url, { signal: abort.signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const lines = [];
  let line = '';
  let length = 0;
  try {
    while (lines.length < rows && length < 2 ** 22) {
      const { done, value } = await reader.read();
      if (done) break;
      length += value.length;
      const pieces = (line + value).split('\n');
      line = pieces.pop();
      lines.push(...pieces);
    }
  } finally {
    abort.abort();
  }
  if (lines.length < rows && line) lines.push(line);
  return lines.slice(0, rows).map((text) => text.trim().split(',', cols));
}

/** Puts a matrix; `progress` is told the share that is sent. Returns its id and shape. */
export function putMatrix(body, format, progress) {
  return new Promise((resolve, reject) => {
    // XMLHttpRequest, because fetch can not tell how much of a body is sent.
    const xhr = new XMLHttpRequest();
    xhr.open('PUT', '/api/matrices');
    xhr.setRequestHeader('Content-Type', TYPES[format]);
    xhr.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    xhr.onload = () => {
      if (xhr.status >= 200 && xhr.status < 300) resolve(JSON.parse(xhr.responseText));
      else reject(new ApiProblem(parseProblem(xhr.responseText, xhr.status)));
    };
    xhr.onerror = () => reject(new ApiProblem(strings.problem.network));
    xhr.send(body);
  });
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new ApiProblem(strings.problem.network);
  }
  if (!response.ok) throw new ApiProblem(parseProblem(await response.text(), response.status));
  return response;
}

function parseProblem(text, status) {
  try {
    const { code, message, hint } = JSON.parse(text).error;
    return { code, message, hint };
  } catch {
    return { code: 'unexpected', ...strings.problem.unexpected(status) };
  }
}
