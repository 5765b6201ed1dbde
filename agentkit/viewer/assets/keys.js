// @ts-check
/** Everything by keyboard, and the sheet that lists the keys. */

import { button, h } from './dom.js';
import { commandsFor } from './commands.js';
import { copy } from './text.js';

/**
 * @typedef {object} Views
 * @property {import('./state.js').App} app
 * @property {import('./tree.js').Tree} tree
 * @property {import('./strip.js').Strip} strip
 * @property {import('./detail.js').Detail} detail
 * @property {import('./search.js').Search} search
 * @property {HTMLDialogElement} sheet
 */
/** @typedef {{keys: string[], about: string, act: (views: Views) => void, scroll?: boolean}} Key */

/** @type {[string, Key[]][]} */
const GROUPS = [
  ['Move', [
    { keys: ['ArrowDown', 'j'], about: 'Next row', act: ({ tree }) => tree.choose(tree.index + 1), scroll: true },
    { keys: ['ArrowUp', 'k'], about: 'Row before', act: ({ tree }) => tree.choose(tree.index - 1), scroll: true },
    { keys: ['ArrowRight', 'l'], about: 'Open, or go in', act: ({ tree }) => tree.toggle(true) },
    { keys: ['ArrowLeft', 'h'], about: 'Close, or go out', act: ({ tree }) => tree.toggle(false) },
    { keys: ['Home'], about: 'First row', act: ({ tree }) => tree.choose(0), scroll: true },
    { keys: ['End'], about: 'Last row', act: ({ tree }) => tree.choose(tree.rows.length - 1), scroll: true },
    { keys: ['PageDown'], about: 'Ten rows on', act: ({ tree }) => tree.choose(tree.index + 10), scroll: true },
    { keys: ['PageUp'], about: 'Ten rows back', act: ({ tree }) => tree.choose(tree.index - 10), scroll: true },
    { keys: ['e'], about: 'Next failure', act: (views) => failure(views, 1) },
    { keys: ['E'], about: 'Failure before', act: (views) => failure(views, -1) },
  ]],
  ['Look', [
    { keys: [']'], about: 'Next tab', act: ({ detail }) => detail.turn(1) },
    { keys: ['['], about: 'Tab before', act: ({ detail }) => detail.turn(-1) },
    { keys: ['1', '2', '3', '4', '5', '6', '7', '8', '9'], about: 'A tab by its number', act: () => {} },
    { keys: ['Enter'], about: 'Into the details', act: ({ detail }) => { document.body.classList.add('looking'); detail.panel.focus(); } },
    { keys: [' '], about: 'Play or pause the stream', act: ({ detail }) => /** @type {HTMLElement | null} */ (detail.panel.querySelector('.play'))?.click(), scroll: true },
  ]],
  ['Search', [
    { keys: ['/'], about: 'Search everything', act: ({ search }) => { search.input.focus(); search.input.select(); } },
    { keys: ['n'], about: 'Next hit', act: ({ search }) => search.go(1) },
    { keys: ['N'], about: 'Hit before', act: ({ search }) => search.go(-1) },
  ]],
  ['Time', [
    { keys: ['+', '='], about: 'Zoom in', act: ({ strip }) => strip.zoom(1 / 1.6) },
    { keys: ['-'], about: 'Zoom out', act: ({ strip }) => strip.zoom(1.6) },
    { keys: ['0'], about: 'Show all', act: ({ strip }) => strip.fit() },
    { keys: ['s'], about: 'To the strip of time: arrows move, Enter filters', act: ({ strip }) => strip.canvas.focus() },
  ]],
  ['Copy', [
    { keys: ['f'], about: 'The command that forks the run here', act: (views) => command(views, 'f') },
    { keys: ['t'], about: 'The command that makes a test', act: (views) => command(views, 't') },
    { keys: ['c'], about: 'The command that shows this in a terminal', act: (views) => command(views, 'c') },
    { keys: ['d'], about: 'The command that decides, or compares', act: (views) => command(views, 'd') },
  ]],
  ['Page', [
    { keys: ['?'], about: 'These keys', act: ({ sheet }) => (sheet.open ? sheet.close() : sheet.showModal()) },
    { keys: ['Escape'], about: 'Back: the filter of time, the details', act: back },
  ]],
];
const BY_KEY = new Map(GROUPS.flatMap(([, keys]) => keys.flatMap((one) => one.keys.map((key) => /** @type {[string, Key]} */ ([key, one])))));

/**
 * Listen to the keyboard.
 * @param {Views} views
 */
export function listen(views) {
  document.addEventListener('keydown', (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.ctrlKey || event.metaKey || event.altKey || target.closest('input, textarea, select')) return;
    if (views.sheet.open && event.key !== '?') return;
    const found = BY_KEY.get(event.key);
    if (!found || own(target, event.key)) return;
    if (found.scroll && target === views.detail.panel && event.key !== 'j' && event.key !== 'k' && event.key !== ' ') return;
    event.preventDefault();
    if (/^[1-9]$/.test(event.key)) {
      const pane = views.detail.panes[Number(event.key) - 1];
      if (pane) views.app.state.set({ tab: pane.id });
    } else found.act(views);
  });
}

/**
 * Whether a control does something of its own at a key.
 * @param {HTMLElement} target
 * @param {string} key
 */
function own(target, key) {
  return Boolean(target.closest('button, summary')) && (key === 'Enter' || key === ' ');
}

/** @param {Views} views */
function back({ app, tree }) {
  if (app.state.range) app.state.set({ range: null });
  else document.body.classList.remove('looking');
  tree.element.focus();
}

/**
 * @param {Views} views
 * @param {number} by
 */
function failure({ app, tree }, by) {
  const { store, state } = app;
  const failed = [...store.shown.effects.values()].filter((one) => one.kind !== 'agent' && store.failed(one)).map((one) => one.at);
  if (!failed.length) return app.announce('Nothing failed.');
  const now = failed.indexOf(state.at);
  state.go(store.shown, failed[now < 0 ? (by > 0 ? 0 : failed.length - 1) : (now + by + failed.length) % failed.length]);
  tree.reveal();
}

/**
 * @param {Views} views
 * @param {string} key
 */
function command({ app, detail }, key) {
  const { effect } = detail;
  const found = effect && commandsFor(app, effect).find((one) => one.key === key);
  if (found) copy(app, found.text, `Copied: ${found.text}`);
}

/** @type {Record<string, string>} */
const NAMES = { ArrowDown: '↓', ArrowUp: '↑', ArrowLeft: '←', ArrowRight: '→', Escape: 'Esc', ' ': 'Space', PageDown: 'Page ↓', PageUp: 'Page ↑' };

/** Return the sheet with all keys. */
export function sheet() {
  const dialog = /** @type {HTMLDialogElement} */ (h('dialog', { class: 'sheet', 'aria-label': 'Keys' }));
  dialog.append(
    h('div', { class: 'sheet-head' }, h('h2', {}, 'Keys'), button('Close', () => dialog.close())),
    h('div', { class: 'sheet-body' }, GROUPS.map(([title, keys]) => h('section', {}, h('h3', {}, title),
      h('dl', {}, keys.flatMap((one) => [h('dt', {}, (one.keys.length > 3 ? [one.keys[0], '…', one.keys[one.keys.length - 1]] : one.keys).map((key) => (key === '…' ? ' … ' : h('kbd', {}, NAMES[key] ?? key)))), h('dd', {}, one.about)]))))));
  dialog.addEventListener('click', (event) => { if (event.target === dialog) dialog.close(); });
  return dialog;
}
