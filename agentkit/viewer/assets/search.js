// @ts-check
/** Looks through everything that was recorded, a little at a time. */

import { button, fill, h } from './dom.js';
import { asText, count } from './format.js';
import { stepsOf } from './remote.js';
import { callsOf, messageText } from './store.js';
import { pattern } from './text.js';

/** @typedef {import('./store.js').Effect} Effect */
/** @typedef {{at: string, side: string, tab: string, count: number}} Hit */

/** Milliseconds after which the page gets to draw. */
const SLICE = 12;
const MOST = 5000;

export class Search {
  /** @param {import('./state.js').App} app */
  constructor(app) {
    this.app = app;
    /** @type {Hit[]} */
    this.hits = [];
    this.index = -1;
    this.turn = 0;
    this.input = /** @type {HTMLInputElement} */ (h('input', { type: 'search', placeholder: 'Search everything', 'aria-label': 'Search everything', autocomplete: 'off', spellcheck: 'false', oninput: () => this.later(), onkeydown: (/** @type {KeyboardEvent} */ event) => this.key(event) }));
    this.count = h('span', { class: 'hits num', role: 'status' });
    this.element = h('div', { class: 'search', role: 'search' }, this.input, this.count,
      button('↑', () => this.go(-1), { 'aria-label': 'Previous hit', title: 'Previous hit (N)' }),
      button('↓', () => this.go(1), { 'aria-label': 'Next hit', title: 'Next hit (n)' }));
  }

  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.run(), 120);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.key === 'Enter') {
      event.preventDefault();
      if (this.input.value !== this.app.state.query) this.run();
      else this.go(event.shiftKey ? -1 : 1);
    } else if (event.key === 'Escape') {
      event.stopPropagation();
      this.input.value = '';
      this.run();
      this.input.blur();
    }
  }

  /** Search anew. */
  async run() {
    clearTimeout(this.timer);
    const query = this.input.value, turn = (this.turn += 1);
    this.hits = [];
    this.index = -1;
    this.done = false;
    if (query) {
      const expression = pattern(query);
      let since = performance.now();
      for (const [effect, tab, text] of this.texts()) {
        const found = (text.match(expression) ?? []).length;
        if (found) this.hits.push({ at: effect.at, side: effect.side, tab, count: found });
        if (this.hits.length >= MOST) break;
        if (performance.now() - since > SLICE) {
          await new Promise((resolve) => { setTimeout(resolve); });
          if (turn !== this.turn) return;
          since = performance.now();
        }
      }
    }
    this.done = true;
    const { state, store } = this.app;
    const hits = new Set(this.hits.map((one) => one.at));
    const [first] = this.hits;
    if (first) {
      this.index = 0;
      state.go(store.shown, first.at, { query, hits, side: first.side, tab: first.tab });
    } else state.set({ query, hits });
    this.say();
  }

  /**
   * Go on to another hit.
   * @param {number} by
   */
  go(by) {
    if (!this.hits.length) return;
    this.index = (this.index + by + this.hits.length) % this.hits.length;
    const { at, side, tab } = this.hits[this.index];
    this.app.state.go(this.app.store.shown, at, { side, tab });
    this.say();
  }

  say() {
    const many = this.hits.length >= MOST ? '+' : '';
    fill(this.count, !this.input.value ? '' : this.hits.length ? `${count(this.index + 1)} / ${count(this.hits.length)}${many}` : 'no hits');
  }

  /**
   * Yield every text once, where it first appears, with the tab that shows it.
   * @returns {Generator<[Effect, string, string]>}
   */
  * texts() {
    const { store } = this.app;
    for (const run of store.two ? [store.runs.a, store.runs.b] : [store.runs.a]) {
      const seen = new Set();
      const once = function* (/** @type {Effect} */ effect, /** @type {string} */ tab, /** @type {any[]} */ names) {
        for (const name of names) {
          if (typeof name !== 'string' || seen.has(name) || !store.blobs.has(name)) continue;
          seen.add(name);
          yield /** @type {[Effect, string, string]} */ ([effect, tab, contentText(store.blobs.get(name))]);
        }
      };
      for (const effect of inOrder(run)) {
        const own = effect.kind === 'model' ? 'context' : effect.kind === 'agent' ? 'overview' : 'tool';
        yield [effect, own, `${effect.at} ${effect.name}`];
        if (effect.arguments) yield [effect, own, effect.arguments];
        const input = store.blob(effect.start?.input);
        yield* once(effect, own, [...(input?.messages ?? []), ...(effect.start?.messages ?? []), effect.start?.tools, effect.start?.params?.output, effect.end?.message, effect.skip?.message]);
        for (const value of [effect.end?.value, effect.output, effect.decision, effect.note]) if (value !== undefined && value !== null) yield [effect, own, asText(value)];
        const error = effect.end?.error;
        if (error) yield [effect, own, `${error.type} ${asText(error.message ?? '')}\n${asText(error.traceback ?? '')}`];
        for (const one of stepsOf(effect)) yield [effect, own, [one.name, one.arguments, one.text, one.value].filter((part) => part !== undefined).map(asText).join('\n')];
        for (const one of effect.attempts ?? []) if (one.error) yield [effect, 'attempts', asText(one.error)];
        for (const one of effect.progress ?? []) yield [effect, 'stream', asText(one)];
        for (const one of [...(effect.logs ?? []), ...(effect.warnings ?? [])]) yield [effect, 'logs', `${one.code ?? ''} ${asText(one.text)} ${one.data ? JSON.stringify(one.data) : ''}`];
      }
    }
  }
}

/**
 * Yield the effects of a run as the tree has them.
 * @param {import('./store.js').Run} run
 * @returns {Generator<Effect>}
 */
function* inOrder(run, at = '') {
  for (const one of run.children(at)) {
    yield /** @type {Effect} */ (run.get(one));
    yield* inOrder(run, one);
  }
}

/**
 * Return the text of a content as it is shown.
 * @param {any} data
 * @returns {string}
 */
function contentText(data) {
  if (!data?.role) return asText(data);
  return [messageText(data), data.reasoning, data.refusal, ...callsOf(data).flatMap((one) => [one.name, one.arguments])].filter((one) => typeof one === 'string').join('\n');
}
