// @ts-check
/** The list of a folder's runs, as a server follows it. */

import { fill, h } from './dom.js';
import { asText, count, counted, duration, money, short } from './format.js';
import { notes } from './source.js';

/**
 * @typedef {object} Row
 * @property {string} name
 * @property {string} [wall]
 * @property {string} [status]
 * @property {string} [agent]
 * @property {any} [prompt]
 * @property {number} [steps]
 * @property {Record<string, number>} [usage]
 * @property {number | null} [cost]
 * @property {number} [seconds]
 * @property {string} [problem]
 * @property {boolean} [gone]
 */

const TONES = { ok: 'green', paused: 'yellow', running: 'blue', interrupted: 'yellow', cancelled: 'yellow' };
const COLUMNS = ['Status', 'Began', 'Run', 'Agent', 'Asked', 'Steps', 'Tokens', 'Cost', 'Took'];

/**
 * Show the runs that a server names, and keep to what it says of them.
 * @param {HTMLElement} block
 */
export function list(block) {
  /** @type {Map<string, Row>} */
  const rows = new Map();
  const body = h('tbody'), total = h('p', { class: 'note', role: 'status' });
  const note = h('p', { class: 'live-note', role: 'alert', hidden: true });
  const filter = /** @type {HTMLInputElement} */ (h('input', { type: 'search', 'aria-label': 'Filter', placeholder: 'Filter' }));
  const below = (block.dataset.stream ?? '').replace(/runs$/, 'run/');
  let due = false;

  function draw() {
    due = false;
    const wanted = filter.value.trim().toLowerCase();
    const shown = [...rows.values()].filter((row) => !wanted || text(row).includes(wanted));
    shown.sort((a, b) => String(b.wall ?? '').localeCompare(String(a.wall ?? '')) || a.name.localeCompare(b.name));
    fill(body, shown.map((row) => line(row, below)));
    const waiting = shown.filter((row) => row.status === 'paused').length;
    fill(total, [counted(shown.length, 'run'), waiting ? `${count(waiting)} waiting` : ''].filter(Boolean).join(', '));
  }
  const changed = () => {
    if (!due) requestAnimationFrame(draw);
    due = true;
  };

  filter.addEventListener('input', changed);
  document.addEventListener('agentkit-note', (event) => {
    const what = /** @type {CustomEvent} */ (event).detail;
    fill(note, short(what, 600));
    note.hidden = !what;
  });
  fill(document.body, note, h('header', { class: 'top' }, h('h1', {}, short(block.dataset.folder ?? 'Runs', 200)), total, filter),
    h('main', { class: 'runs' }, h('table', {}, h('thead', {}, h('tr', {}, COLUMNS.map((one) => h('th', { scope: 'col' }, one)))), body)));
  const events = new EventSource(block.dataset.stream ?? '');
  events.onmessage = (event) => {
    for (const row of JSON.parse(event.data)) {
      if (row.gone) rows.delete(row.name);
      else rows.set(row.name, row);
    }
    changed();
  };
  notes(events);
  draw();
}

/** @param {Row} row */
function text(row) {
  return [row.name, row.status, row.agent, asText(row.prompt ?? ''), row.problem].join(' ').toLowerCase();
}

/**
 * @param {Row} row
 * @param {string} below where the pages of runs are
 */
function line(row, below) {
  const tone = /** @type {Record<string, string>} */ (TONES)[row.status ?? ''] ?? (row.status ? 'red' : 'yellow');
  const used = row.usage ?? {};
  const when = row.wall ? new Date(row.wall) : null;
  return h('tr', {},
    h('td', {}, h('span', { class: `status t-${tone}` }, row.problem ? 'unreadable' : row.status || '?')),
    h('td', { class: 'num' }, when && !Number.isNaN(when.getTime()) ? when.toLocaleString() : ''),
    h('td', {}, h('a', { href: `${below}${encodeURIComponent(row.name)}` }, short(row.name.replace(/\.jsonl$/, ''), 40))),
    h('td', {}, short(row.agent ?? '', 40)),
    h('td', { class: 'asked' }, short(row.problem ?? asText(row.prompt ?? ''), 160)),
    h('td', { class: 'num' }, row.steps === undefined ? '' : count(row.steps)),
    h('td', { class: 'num' }, used.input_tokens || used.output_tokens ? `${count(used.input_tokens ?? 0)} → ${count(used.output_tokens ?? 0)}` : ''),
    h('td', { class: 'num' }, money(row.cost ?? undefined)),
    h('td', { class: 'num' }, row.seconds === undefined ? '' : duration(row.seconds * 1e6)));
}

const block = document.getElementById('data');
if (block) list(block);
