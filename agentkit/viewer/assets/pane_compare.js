// @ts-check
/** Two runs at one address, and as a whole: what differs first, what follows. */

import { button, h, section } from './dom.js';
import { asText, count, counted, duration, money, short } from './format.js';
import { differing } from './difftext.js';

/** @typedef {import('./state.js').App} App */
/** @typedef {import('./store.js').Difference} Difference */

/** @type {Record<string, string>} */
const KINDS = { only_a: 'only a has it', only_b: 'only b has it', det: 'a time or a number that was drawn' };

/** @type {import('./panes.js').Pane['show']} */
export function comparePane(app, effect) {
  const { store } = app;
  const here = store.differences.get(effect.at) ?? [];
  const outermost = effect.at === store.shown.root;
  const sides = ['a', 'b'].map((side) => store.runs[side].get(effect.at));
  const own = here.length ? here.map((one) => difference(app, one)) : [h('p', { class: 'note' }, sides.every(Boolean) ? 'The same here in both runs.' : `Only ${sides[0] ? 'a' : 'b'} has it.`)];
  return [
    outermost ? summary(app) : null,
    outermost && !here.length ? null : section('At this address', ...own),
    outermost ? null : used(app, effect.at),
    outermost ? totals(app) : null,
  ];
}

/**
 * Return the first difference in full, the other causes, and what follows, folded.
 * @param {App} app
 */
function summary(app) {
  const { diff } = app.store;
  /** @type {Difference[]} */
  const all = diff.differences;
  const [first] = all;
  if (!first) return section('The runs are the same', h('p', { class: 'note' }, 'What they did is the same at every address; times and costs are not compared.'));
  const causes = all.filter((one) => !one.follows).slice(1), follow = all.filter((one) => one.follows);
  return h('div', {},
    section(['First difference ', h('small', {}, place(app, first))], difference(app, first)),
    causes.length ? section(['Not explained by that ', h('small', {}, count(causes.length))], lines(app, causes)) : null,
    follow.length ? h('details', { class: 'follows' }, h('summary', {}, `What follows: ${counted(follow.length, 'difference')}`), lines(app, follow)) : null,
    diff.a.program === diff.b.program ? null : h('p', { class: 'note' }, 'The agents are not the same: instructions, tools or schemas differ.'));
}

/**
 * @param {App} app
 * @param {Difference[]} list
 */
function lines(app, list) {
  return h('ul', { class: 'causes' }, list.slice(0, 300).map((one) => h('li', {}, place(app, one), ' ', h('b', {}, one.kind.replace('_', ' ')), ' ', h('span', { class: 'note' }, `${one.pointer} ${short(asText(one.a), 60)} → ${short(asText(one.b), 60)}`))));
}

/**
 * @param {App} app
 * @param {Difference} one
 */
function place(app, one) {
  return button(one.at, () => app.state.go(app.store.shown, one.at, { tab: 'compare' }), { class: 'link' });
}

/**
 * @param {App} _
 * @param {Difference} one
 */
function difference(_, one) {
  return h('div', { class: `change ${one.follows ? 'follows' : 'cause'}` },
    h('h4', {}, KINDS[one.kind] ?? one.kind, one.pointer ? h('code', {}, ` ${short(one.pointer, 200)}`) : null, one.follows ? h('span', { class: 'badge' }, 'follows') : null),
    differing(one.a, one.b, ['a', 'b']),
    one.more ? h('p', { class: 'note' }, `and ${counted(one.more, 'more difference')} there`) : null);
}

/**
 * @param {App} app
 * @param {string} at
 */
function used({ store }, at) {
  const found = store.diff.places.find((/** @type {any} */ one) => one.at === at);
  return found ? section('Used', table([['a', found.a], ['b', found.b]])) : null;
}

/** @param {App} app */
function totals({ store }) {
  return section('Totals', table([['a', store.diff.a.totals], ['b', store.diff.b.totals]]));
}

/** @param {[string, any][]} sides */
function table(sides) {
  /** @type {[string, (used: any) => string][]} */
  const rows = [['Model calls', (one) => count(one.steps)], ['Tool calls', (one) => count(one.tool_calls)], ['Input tokens', (one) => count(one.input_tokens)], ['Output tokens', (one) => count(one.output_tokens)], ['Cost', (one) => money(one.cost) || 'unknown'], ['Time', (one) => one.seconds === null ? 'unknown' : duration(one.seconds * 1e6)]];
  return h('table', { class: 'table' }, h('thead', {}, h('tr', {}, h('td'), ...sides.map(([name]) => h('th', { scope: 'col' }, name)))),
    h('tbody', {}, rows.map(([name, value]) => h('tr', {}, h('th', { scope: 'row' }, name), ...sides.map(([, used]) => h('td', { class: 'num' }, used ? value(used) : '–'))))));
}
