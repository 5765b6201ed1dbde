// @ts-check
/** Messages as a model reads them. */

import { fill, h } from './dom.js';
import { asText, counted, short, size } from './format.js';
import { callsOf, messageText } from './store.js';
import { block, image } from './text.js';

/** @typedef {import('./state.js').App} App */

/** What has a place of its own. */
const PLACED = ['role', 'content', 'tool_calls', 'tool_call_id', 'name', 'reasoning', 'refusal'];

/**
 * Return a message by its hash; what it holds is made when it is opened.
 * @param {App} app
 * @param {string} name
 * @param {{mark?: string, open?: boolean, title?: string}} [options]
 */
export function message(app, name, { mark = '', open = false, title = '' } = {}) {
  const data = app.store.blob(name);
  const known = data !== null && typeof data === 'object';
  const role = known ? String(data.role ?? '?') : 'not recorded';
  const calls = callsOf(data);
  const preview = known ? messageText(data) || calls.map((one) => `→ ${one.name} ${one.arguments}`).join('  ') : String(name);
  const body = h('div', { class: 'message-body' });
  const fillBody = () => {
    if (!body.childNodes.length) fill(body, known ? parts(app, data) : h('p', { class: 'note' }, 'The contents of this run were not recorded; this is the hash of the message.'));
  };
  if (open) fillBody();
  return h('details', { class: `message role-${/^\w+$/.test(role) ? role : 'other'} ${mark && `is-${mark}`}`, open, ontoggle: fillBody },
    h('summary', {}, h('span', { class: 'role' }, title || role), known && data.name && h('span', { class: 'who' }, short(String(data.name), 40)),
      mark && h('span', { class: 'badge' }, mark), h('span', { class: 'preview' }, short(preview, 200)),
      preview.length > 2000 && h('span', { class: 'num' }, size(preview.length))),
    body);
}

/**
 * Return what a message holds.
 * @param {App} app
 * @param {any} data
 * @returns {(Node | null)[]}
 */
function parts(app, data) {
  const rest = Object.fromEntries(Object.entries(data).filter(([key, value]) => !PLACED.includes(key) && value !== null));
  return [
    data.reasoning ? h('div', { class: 'reasoning' }, h('h4', {}, 'Reasoning'), block(app, data.reasoning)) : null,
    ...content(app, data.content, data.role),
    data.refusal ? h('div', {}, h('h4', {}, 'Refusal'), block(app, data.refusal)) : null,
    ...callsOf(data).map((one) => h('div', { class: 'call' }, h('div', { class: 'call-name' }, `→ ${short(one.name, 100)}`), block(app, one.arguments, { label: 'arguments' }))),
    Object.keys(rest).length ? h('div', {}, h('h4', {}, 'More'), block(app, rest)) : null,
  ];
}

/**
 * @param {App} app
 * @param {any} value
 * @param {any} role
 * @returns {Node[]}
 */
function content(app, value, role) {
  if (value === null || value === undefined || value === '') return [];
  if (!Array.isArray(value)) return [block(app, value, { kind: role === 'tool' ? '' : 'prose' })];
  return value.map((part) => {
    if (part?.type === 'text') return block(app, part.text, { kind: role === 'tool' ? '' : 'prose' });
    if (part?.type === 'image_url') return image(part.image_url?.url);
    const text = asText(part);
    return text.length > 2000 ? h('div', { class: 'note' }, `${asText(part?.type)}, ${size(text.length)}`) : block(app, part);
  });
}

/**
 * Return a list of messages of which only the last ones are there, until the others are wanted.
 * @param {App} app
 * @param {string[]} names
 * @param {(name: string, index: number) => HTMLElement} make
 * @param {number} last how many are there at once
 */
export function messageList(app, names, make, last) {
  const list = h('div', { class: 'messages' });
  let from = Math.max(0, names.length - last);
  /** @type {HTMLElement[]} */
  let made = names.slice(from).map((name, index) => make(name, from + index));
  const head = names.length && from > 0 ? [make(names[0], 0)] : [];
  if (head.length && from === 1) [from, made] = [0, [...head, ...made]];
  const draw = () => {
    const hidden = from - 1;
    fill(list, from > 0 && head, hidden > 0 && h('button', {
      type: 'button', class: 'link more',
      onclick: () => {
        const start = Math.max(1, from - 100);
        made = [...names.slice(start, from).map((name, index) => make(name, start + index)), ...made];
        from = start;
        draw();
      },
    }, `Show ${hidden > 100 ? '100 of ' : ''}${counted(hidden, 'message')} between`), made);
  };
  draw();
  return list;
}
