// @ts-check
/** What the model saw at a step, and what changed since the step before. */

import { button, facts, h, section } from './dom.js';
import { asText, count, counted, duration, money, short, tokens } from './format.js';
import { readable } from './json.js';
import { message, messageList } from './message.js';
import { block } from './text.js';
import { differing } from './difftext.js';
import { compared } from './textdiff.js';
import { failure } from './failure.js';
import { remote } from './remote.js';

/** @typedef {import('./state.js').App} App */
/** @typedef {import('./store.js').Effect} Effect */

/**
 * Return how the messages of a step stand to those of the step before.
 * @param {App} app
 * @param {Effect} effect
 */
function steps({ store }, effect) {
  const run = store.runs[effect.side], before = run.previous(effect);
  const now = run.messages(effect), then = before ? run.messages(before) : [];
  return { run, before, now, then, lines: compared(then, now) };
}

/** @type {import('./panes.js').Pane['show']} */
export function contextPane(app, effect) {
  const { store } = app;
  const { before, now, lines } = steps(app, effect);
  const added = new Set(before ? lines.filter((one) => one.kind === 'new').map((one) => one.text) : []);
  const removed = lines.filter((one) => one.kind === 'gone').length;
  const fresh = now.filter((name) => added.has(name)).length;
  const head = before ? `${counted(now.length, 'message')}, ${fresh || 'none'} new in this step${removed ? `, ${removed} left out` : ''}` : `${counted(now.length, 'message')}, the first request`;
  const tools = store.blob(effect.start?.tools);
  const params = { ...(effect.start?.params ?? {}) };
  const output = store.blob(params.output);
  delete params.output;
  const make = (/** @type {string} */ name) => message(app, name, added.has(name) ? { mark: 'new', open: true } : { open: !before && now.length < 6 });
  const answer = effect.end?.message;
  return [
    section('Answer', answer ? message(app, answer, { open: true, title: 'answer' }) : failure(app, effect) ?? h('p', { class: 'note' }, 'There is no answer: the call was in flight when the record ends.'),
      facts([['Finish', effect.end?.finish && effect.end.finish !== 'stop' && effect.end.finish !== 'tool_calls' ? effect.end.finish : ''], ['Tokens', tokens(effect.usage)], ['Cached', effect.usage?.cached_tokens ? count(effect.usage.cached_tokens) : ''], ['Reasoning', effect.usage?.reasoning_tokens ? count(effect.usage.reasoning_tokens) : ''], ['Cost', money(effect.usage?.cost)], ['First piece', duration(effect.end?.first_chunk)]])),
    remote(app, effect),
    section(['Request ', h('small', {}, head)], messageList(app, now, make, Math.max(20, fresh + 4))),
    toolsSection(app, tools),
    Object.keys(params).length ? section('Settings', facts(Object.entries(params).map(([name, value]) => [name, asText(value)]))) : null,
    output ? section('Output format', block(app, output)) : null,
  ];
}

/**
 * @param {App} app
 * @param {any} tools
 */
function toolsSection(app, tools) {
  if (!Array.isArray(tools) || !tools.length) return null;
  return section(['Tools ', h('small', {}, String(tools.length))], ...tools.slice(0, 200).map((tool) => {
    const one = tool?.function ?? tool ?? {};
    const body = h('div', { class: 'message-body' });
    return h('details', { class: 'message', ontoggle: () => { if (!body.childNodes.length) body.append(block(app, one.parameters ?? one)); } },
      h('summary', {}, h('span', { class: 'role' }, short(String(one.name ?? '?'), 60)), h('span', { class: 'preview' }, short(String(one.description ?? ''), 200))), body);
  }));
}

/** @type {import('./panes.js').Pane['show']} */
export function changesPane(app, effect) {
  const { store } = app;
  const { before, now, then, lines } = steps(app, effect);
  if (!before) return [h('p', { class: 'note' }, 'This is the first request of its agent: there is none before it to compare with.')];
  const name = (/** @type {Effect} */ one) => one.at.slice(one.at.lastIndexOf('/') + 1);
  const changed = lines.filter((one) => one.kind !== 'same');
  const params = [before, effect].map((one) => ({ model: one.start?.model, ...one.start?.params, output: store.blob(one.start?.params?.output) }));
  const keys = [...new Set(params.flatMap(Object.keys))].filter((key) => asText(params[0][key]) !== asText(params[1][key]));
  const lists = [before, effect].map((one) => store.blob(one.start?.tools));
  const [left, right] = [name(before), name(effect)];
  return [
    h('p', { class: 'lead' }, 'Since ', button(before.at, () => app.state.go(store.shown, before.at, { tab: 'changes' }), { class: 'link' }), `: ${counted(then.length, 'message')} then, ${count(now.length)} now.`),
    section('Messages', changed.length ? pairs(app, changed, [left, right]) : h('p', { class: 'note' }, 'The same messages.')),
    keys.length ? section('Settings', ...keys.map((key) => h('div', { class: 'change' }, h('h4', {}, key), differing(params[0][key] ?? '(absent)', params[1][key] ?? '(absent)', [left, right])))) : null,
    before.start?.tools !== effect.start?.tools ? section('Tools', differing(lists[0], lists[1], [left, right])) : null,
  ];
}

/**
 * Return the messages that came and went; one that took the place of another is compared with it.
 * @param {App} app
 * @param {import('./textdiff.js').Line[]} changed
 * @param {[string, string]} names
 */
function pairs(app, changed, names) {
  const shown = [];
  for (let index = 0; index < changed.length && shown.length < 100; index += 1) {
    const [one, next] = [changed[index], changed[index + 1]];
    const [a, b] = [app.store.blob(one.text), app.store.blob(next?.text)];
    if (one.kind === 'gone' && next?.kind === 'new' && a?.role === b?.role && a?.role) {
      shown.push(h('div', { class: 'change' }, h('h4', {}, `${a.role}, changed`), differing(readable(a.content), readable(b.content), names)));
      index += 1;
    } else shown.push(message(app, one.text, { mark: one.kind === 'new' ? 'added' : 'removed', open: one.kind === 'new' }));
  }
  return h('div', { class: 'messages' }, shown);
}
