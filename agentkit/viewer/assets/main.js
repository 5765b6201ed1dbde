// @ts-check
/** Builds the page and keeps its parts together. */

import { button, fill, h } from './dom.js';
import { Detail } from './detail.js';
import { count, counted, duration, money, short } from './format.js';
import { listen, sheet } from './keys.js';
import { Search } from './search.js';
import { sourceOf } from './source.js';
import { State, fromHash, toHash } from './state.js';
import { Store, messageText } from './store.js';
import { Strip } from './strip.js';
import { Tree } from './tree.js';

/**
 * Show what a source yields, as it comes.
 * @param {import('./source.js').Source} source
 */
export async function boot(source) {
  const store = new Store();
  const toast = h('div', { class: 'toast', role: 'status' });
  /** @type {ReturnType<typeof setTimeout>} */
  let fading;
  let started = false, due = false, grown = false;
  const state = new State(() => {
    if (!started || due) return;
    due = true;
    requestAnimationFrame(draw);
  });
  /** @type {import('./state.js').App} */
  const app = {
    store, state, source,
    announce(text) {
      fill(toast, short(text, 300));
      toast.classList.add('on');
      clearTimeout(fading);
      fading = setTimeout(() => toast.classList.remove('on'), 2600);
    },
  };
  const tree = new Tree(app), strip = new Strip(app), detail = new Detail(app), search = new Search(app), keys = sheet();
  const head = h('div', { class: 'run' });
  const split = h('div', { class: 'left' }, tree.element);
  let looked = '';

  function draw() {
    due = false;
    if (grown) {
      fill(head, headline(store));
      strip.layout();
      grown = false;
    } else strip.draw();
    tree.update();
    detail.update();
    if (looked !== state.at) {
      looked = state.at;
      tree.reveal();
    }
    const hash = toHash(state, store.two);
    if (location.hash !== hash) history.replaceState(null, '', hash);
  }

  /** Look at what the address bar asks for, or at the run as a whole. */
  function follow() {
    const { at, tab, side } = fromHash(location.hash);
    const known = store.shown.get(at);
    if (at && !known && started) app.announce(`There is nothing at ${at}`);
    const first = known ? at : store.shown.root;
    if (known) document.body.classList.add('looking');
    state.go(store.shown, first, { tab, side: side === 'b' && store.two ? 'b' : 'a' });
  }

  const note = h('p', { class: 'live-note', role: 'alert', hidden: true });
  document.addEventListener('agentkit-note', (event) => {
    const text = /** @type {CustomEvent} */ (event).detail;
    fill(note, short(text, 600));
    note.hidden = !text;
  });
  const runs = document.getElementById('data')?.dataset.runs;
  fill(document.body, note, h('header', { class: 'top' }, runs ? h('a', { href: runs, class: 'to-runs', 'aria-label': 'All runs', title: 'All runs' }, '←') : null, head, search.element, button('?', () => keys.showModal(), { class: 'help', 'aria-label': 'Keys', title: 'Keys (?)' })),
    strip.element, h('main', { class: 'main' }, split, detail.element), keys, toast);
  listen({ app, tree, strip, detail, search, sheet: keys });
  addEventListener('hashchange', follow);
  for await (const records of source.batches) {
    store.add(records);
    grown = true;
    if (!started && store.shown.effects.size) {
      follow();
      started = true;
      tree.element.focus({ preventScroll: true });
    }
    state.changed();
  }
  if (!started) {
    started = true;
    state.changed();
  }
  performance.mark('ready');
  document.documentElement.dataset.ready = 'true';
}

/** @param {Store} store */
function headline(store) {
  const one = (/** @type {string} */ side) => {
    const { info } = store.runs[side], { sign, word, tone } = store.mark(info.status ?? '');
    const prompt = Array.isArray(info.prompt) ? messageText({ content: info.prompt }) : String(info.prompt ?? '');
    return h('div', { class: 'run-line' }, store.two ? h('b', { class: 'side' }, side) : null,
      h('span', { class: `status t-${tone}` }, `${sign} ${word}`),
      h('h1', { title: short(prompt, 400) }, short(prompt, 200) || info.agent || 'A run'),
      h('span', { class: 'totals num' }, [duration((info.seconds ?? 0) * 1e6), counted(info.steps ?? 0, 'step'), counted(info.tool_calls ?? 0, 'call'), info.usage?.input_tokens || info.usage?.output_tokens ? `${count(info.usage.input_tokens ?? 0)} → ${count(info.usage.output_tokens ?? 0)} tokens` : '', money(info.cost)].filter(Boolean).join(' · ')));
  };
  return store.two ? [one('a'), one('b')] : [one('a')];
}

const block = document.getElementById('data');
if (block) {
  const source = sourceOf(block);
  boot(source).catch((error) => {
    fill(document.body, h('p', { class: 'broken', role: 'alert' }, `This page cannot be shown: ${error instanceof Error ? error.message : error}`));
    throw error;
  });
}
