// @ts-check
/** The tree of agents, steps and calls. */

import { h } from './dom.js';
import { duration, money, short, tokens } from './format.js';
import { List } from './list.js';
import { callsOf, messageText } from './store.js';

/** @typedef {import('./store.js').Effect} Effect */
/** @typedef {import('./state.js').App} App */
/**
 * @typedef {object} Row
 * @property {Effect} effect
 * @property {number} depth
 * @property {boolean | null} open null if nothing is below
 * @property {number} position among its siblings, from 1
 * @property {number} size how many siblings there are
 * @property {string} beside its place among calls that ran at the same time
 * @property {[number, number]} [together] when these ran, first to last
 */

export class Tree {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.element = h('div', { class: 'tree', role: 'tree', tabindex: 0, 'aria-label': 'Agents, steps and calls', onclick: (/** @type {Event} */ event) => this.click(event) });
    /** @type {List<number[]>} */
    this.list = new List(this.element, (line) => this.line(line));
    this.list.resized = () => this.update();
    /** @type {Row[]} */
    this.rows = [];
    /** The numbers of the rows that stand in each line. */
    this.lines = /** @type {number[][]} */ ([]);
  }

  update() {
    this.rows = rowsOf(this.app);
    const index = this.index;
    this.lines = linesOf(this.rows, this.element.clientWidth);
    this.list.show(this.lines);
    this.element.setAttribute('aria-activedescendant', index < 0 ? '' : `row-${index}`);
  }

  /** The number of the row that is looked at; -1 if it is not shown. */
  get index() {
    return this.rows.findIndex((row) => row.effect.at === this.app.state.at);
  }

  reveal() {
    const { index } = this;
    if (index >= 0) this.list.reveal(this.lines.findIndex((line) => line.includes(index)));
  }

  /**
   * Look at another row.
   * @param {number} index
   */
  choose(index) {
    const row = this.rows[Math.max(0, Math.min(this.rows.length - 1, index))];
    if (row) this.app.state.set({ at: row.effect.at });
    this.reveal();
  }

  /** @param {boolean} open */
  toggle(open) {
    const row = this.rows[this.index];
    if (row && row.open !== null && row.open !== open) {
      this.app.state.open(row.effect.at, open);
      this.app.state.changed();
    } else if (row && open && row.open) {
      this.choose(this.index + 1);
    } else if (row && !open) {
      const up = this.app.store.shown.above(row.effect.at);
      if (up) this.choose(this.rows.findIndex((one) => one.effect.at === up));
    }
  }

  /** @param {Event} event */
  click(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    const element = /** @type {HTMLElement | null} */ (target.closest('.row'));
    const row = this.rows[Number(element?.dataset.index ?? -1)];
    if (!row) return;
    if (target.closest('.twisty') && row.open !== null) this.app.state.open(row.effect.at, !row.open);
    this.app.state.set({ at: row.effect.at });
    if (!target.closest('.twisty')) document.body.classList.add('looking');
  }

  /**
   * Return a line: one row, or calls that ran at the same time, side by side.
   * @param {number[]} line
   */
  line(line) {
    if (line.length === 1) return this.row(this.rows[line[0]], line[0]);
    const all = line.map((index) => this.rows[index]);
    const ends = `${all[0].beside === 'first' ? 'first' : ''} ${all[all.length - 1].beside === 'last' ? 'last' : ''}`;
    return h('div', { class: `lanes ${ends}`, role: 'presentation' }, indent(all[0].depth, true), line.map((index) => this.row(this.rows[index], index, true)));
  }

  /**
   * @param {Row} row
   * @param {number} index
   * @param {boolean} [lane] whether others stand beside it in the line
   */
  row({ effect, depth, open, position, size, beside, together }, index, lane = false) {
    const { store, state } = this.app;
    const { tag, name, detail } = labelOf(store, effect);
    const status = statusOf(store, effect);
    const { sign, word, tone } = store.mark(status);
    const selected = effect.at === state.at;
    const difference = differenceOf(this.app, effect);
    const classes = ['row', `k-${effect.kind}`, selected && 'selected', state.hits.has(effect.at) && 'hit', lane && 'lane', beside && `beside ${beside}`, difference && `d-${difference}`];
    const took = effect.began === undefined ? null : (effect.ended ?? store.runs[effect.side].end) - effect.began;
    return h('div', {
      class: classes.filter(Boolean).join(' '), id: `row-${index}`, 'data-index': index, role: 'treeitem',
      'aria-level': depth + 1, 'aria-posinset': position, 'aria-setsize': size, 'aria-selected': selected,
      'aria-expanded': open === null ? undefined : open,
      'aria-label': [effect.kind, tag, name, word, beside && 'beside others', DIFFERENT[difference], duration(took)].filter(Boolean).join(', '),
    },
    lane ? null : indent(depth, beside !== ''),
    h('span', { class: 'twisty', 'aria-hidden': 'true' }, open === null ? '' : open ? '▾' : '▸'),
    h('span', { class: 'icon', 'aria-hidden': 'true' }),
    h('span', { class: 'tag' }, tag),
    h('span', { class: 'label' }, name && h('b', {}, short(name, 60)), ' ', h('span', { class: 'more-words' }, short(detail))),
    difference && h('span', { class: 'diff-sign', title: DIFFERENT[difference] }, SIGNS[difference]),
    h('span', { class: 'num tok' }, effect.kind === 'model' ? tokens(effect.usage) : ''),
    store.runs[effect.side].info.cost ? h('span', { class: 'num cost' }, effect.kind === 'model' || effect.kind === 'agent' ? money(effect.usage?.cost) : '') : null,
    h('span', { class: 'num' }, duration(took)),
    timing(store, effect, lane ? together : undefined),
    h('span', { class: `mark t-${tone}`, title: word }, sign));
  }
}

/**
 * @param {number} depth
 * @param {boolean} beam whether a beam joins the row to those beside it
 */
function indent(depth, beam) {
  const element = h('span', { class: 'indent' }, beam && h('span', { class: 'beam' }));
  element.style.width = `${depth * 14}px`;
  return element;
}

/**
 * Return a small bar that shows when an effect ran.
 * @param {import('./store.js').Store} store
 * @param {Effect} effect
 * @param {[number, number]} [span] the time that its place stands for, if not that of the run
 */
function timing(store, effect, [from, to] = [0, store.runs[effect.side].end]) {
  const element = h('span', { class: 'timing', 'aria-hidden': 'true' });
  if (effect.began === undefined) return element;
  const whole = Math.max(1, to - from);
  const bar = h('span', { class: `bar${store.failed(effect) ? ' failed' : ''}` });
  bar.style.left = `${(100 * (effect.began - from)) / whole}%`;
  bar.style.width = `${(100 * ((effect.ended ?? to) - effect.began)) / whole}%`;
  element.append(bar);
  return element;
}

/** @type {Record<string, string>} */
const SIGNS = { cause: '≠', follows: '⋯', a: 'a', b: 'b' };
/** @type {Record<string, string>} */
const DIFFERENT = { cause: 'differs', follows: 'differs, as something before does', a: 'only in a', b: 'only in b' };

/**
 * Return how an effect differs between two runs; '' if it does not.
 * @param {App} app
 * @param {Effect} effect
 */
export function differenceOf({ store }, effect) {
  if (!store.two) return '';
  if (!store.runs.b.get(effect.at)) return 'a';
  if (!store.runs.a.get(effect.at)) return 'b';
  const found = store.differences.get(effect.at) ?? [];
  return found.some((one) => !one.follows) ? 'cause' : found.length ? 'follows' : '';
}

/**
 * Return how an effect is shown: what was in flight may still go on.
 * @param {import('./store.js').Store} store
 * @param {Effect} effect
 */
export function statusOf(store, effect) {
  const going = store.runs[effect.side].info.status === 'running';
  return effect.status === 'in_flight' && going && !effect.in_doubt ? 'running' : effect.status;
}

/**
 * Return the words of a row.
 * @param {import('./store.js').Store} store
 * @param {Effect} effect
 * @returns {{tag: string, name: string, detail: string}}
 */
export function labelOf(store, effect) {
  const part = effect.at.slice(effect.at.lastIndexOf('/') + 1);
  const error = effect.end?.error?.message ?? effect.end?.error?.type;
  switch (effect.kind) {
    case 'model': {
      const answer = store.blob(effect.end?.message);
      const calls = callsOf(answer).map((one) => one.name);
      const words = [messageText(answer?.role ? answer : ''), calls.length ? `→ ${calls.join(', ')}` : ''].filter(Boolean).join('  ');
      return { tag: part, name: '', detail: String(error ?? '') || words || effect.name };
    }
    case 'tool':
      return { tag: /^t\d+$/.test(part) ? part : '', name: effect.name, detail: effect.arguments ?? '' };
    case 'agent':
      return { tag: '', name: part || effect.name, detail: String(error ?? '') };
    default:
      return { tag: '', name: part === effect.name ? effect.name : part, detail: error ?? '' };
  }
}

/**
 * Return the rows that are shown, from top to bottom.
 * @param {App} app
 * @returns {Row[]}
 */
function rowsOf(app) {
  const { store, state } = app;
  const run = store.shown;
  const kept = state.range ? within(app, state.range) : null;
  /** @type {Row[]} */
  const rows = [];
  /** @type {(up: string, depth: number) => void} */
  const add = (up, depth) => {
    let all = run.children(up);
    if (kept) all = all.filter((at) => kept.has(at));
    const beside = besides(all.map((at) => /** @type {Effect} */ (run.get(at))), run.end);
    all.forEach((at, index) => {
      const effect = /** @type {Effect} */ (run.get(at));
      const below = run.children(at);
      const closed = state.closed.has(at) || (holdsAgents(app, effect) && !state.opened.has(at));
      const open = below.length === 0 ? null : !closed;
      rows.push({ effect, depth, open, position: index + 1, size: all.length, ...beside[index] });
      if (open) add(at, depth + 1);
    });
  };
  add('', 0);
  return rows;
}

/**
 * Whether a call has agents in it, which are closed until they are opened; one to which it hands
 * the conversation goes on with it.
 * @param {App} app
 * @param {Effect} effect
 */
function holdsAgents({ store }, effect) {
  return effect.kind === 'tool' && effect.skip?.reason !== 'handoff' && store.shown.children(effect.at).some((at) => store.shown.get(at)?.kind === 'agent');
}

/**
 * Return the addresses that were at work in a stretch of time, and those above them.
 * @param {App} app
 * @param {[number, number]} range
 */
function within({ store }, [from, to]) {
  const kept = new Set();
  for (const [at, one] of store.shown.effects) {
    if (one.began === undefined || one.kind === 'agent') continue;
    if (one.began > to || (one.ended ?? store.runs[one.side].end) < from) continue;
    for (let up = at; up && !kept.has(up); up = store.shown.above(up)) kept.add(up);
  }
  return kept;
}

/**
 * Put rows into lines: closed calls that ran at the same time stand side by side, as many as fit.
 * @param {Row[]} rows
 * @param {number} width
 * @returns {number[][]}
 */
function linesOf(rows, width) {
  /** @type {number[][]} */
  const lines = [];
  for (let index = 0; index < rows.length;) {
    const { together, depth, open } = rows[index];
    let next = index + 1;
    while (together && !open && rows[next]?.together === together && !rows[next].open) next += 1;
    const most = Math.max(1, Math.min(MOST_LANES, Math.floor((width - 14 * depth) / LANE)));
    const each = Math.ceil((next - index) / Math.ceil((next - index) / most));
    for (; index < next; index += each) lines.push(Array.from({ length: Math.min(each, next - index) }, (_, place) => index + place));
    index = next;
  }
  return lines;
}

/** The pixels that a lane needs, and how many are read at a glance. */
const LANE = 225, MOST_LANES = 4;

/**
 * Return for each of some calls whether it ran beside others (the first, another, or the last),
 * and when these ran.
 * @param {Effect[]} effects
 * @param {number} end when the record ends
 * @returns {{beside: string, together?: [number, number]}[]}
 */
function besides(effects, end) {
  /** @type {{beside: string, together?: [number, number]}[]} */
  const found = effects.map(() => ({ beside: '' }));
  for (let index = 0; index < effects.length;) {
    let next = index + 1, until = effects[index].kind === 'tool' ? effects[index].ended ?? Infinity : -1;
    while (next < effects.length && effects[next].kind === 'tool' && (effects[next].began ?? Infinity) < until) {
      until = Math.max(until, effects[next].ended ?? Infinity);
      next += 1;
    }
    if (next - index > 1 && effects[index].began !== undefined) {
      /** @type {[number, number]} */
      const together = [effects[index].began ?? 0, Math.min(until, end)];
      for (let one = index; one < next; one += 1) found[one] = { beside: one === index ? 'first' : one === next - 1 ? 'last' : 'middle', together };
    }
    index = next;
  }
  return found;
}
