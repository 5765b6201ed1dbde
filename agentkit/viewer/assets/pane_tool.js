// @ts-check
/** A call of a tool, or of another function: arguments against the schema, decision, result. */

import { button, facts, h, section } from './dom.js';
import { asText, duration, short } from './format.js';
import { failure } from './failure.js';
import { message } from './message.js';
import { block } from './text.js';
import { waits } from './commands.js';
import { decisionForm } from './decide.js';

/** @typedef {import('./state.js').App} App */
/** @typedef {import('./store.js').Effect} Effect */

/** @type {import('./panes.js').Pane['show']} */
export function toolPane(app, effect) {
  const { store } = app;
  const run = store.runs[effect.side];
  const result = effect.end?.message ?? effect.skip?.message;
  const agents = run.children(effect.at).filter((at) => run.get(at)?.kind === 'agent');
  const value = effect.end && 'value' in effect.end ? effect.end.value : undefined;
  /** @type {[string, any][]} */
  const known = [['Effect', effect.start?.effect], ['If interrupted', effect.start?.on_crash], ['Took', effect.ended === undefined ? '' : duration(effect.ended - (effect.began ?? 0))], ['Call id', effect.start?.call ?? effect.skip?.call]];
  return [
    waits(store, effect) ? section('Decision', h('p', { class: 'lead waits' }, WAITS[effect.in_doubt ? 'in_flight' : effect.waited ?? ''] ?? 'This call waits for a decision.'), othersWait(app, effect), app.source.decide ? decisionForm(app, effect) : null) : null,
    effect.decision ? section('Decision', h('p', { class: 'lead' }, short(effect.decision, 2000))) : null,
    effect.skip ? section('Not run', h('p', { class: 'lead' }, `${SKIPPED[effect.skip.reason] ?? effect.skip.reason}`)) : null,
    effect.kind === 'tool' || effect.arguments ? section('Arguments', ...argumentsOf(app, effect)) : null,
    result ? section('Result', message(app, result, { open: true, title: 'what the model reads' })) : null,
    value !== undefined ? section('Value', block(app, value)) : null,
    failure(app, effect) ? section('Error', failure(app, effect)) : null,
    agents.length ? section('Agents in it', h('div', { class: 'links' }, agents.map((at) => button(at, () => app.state.go(store.shown, at), { class: 'link' })))) : null,
    effect.progress ? section('Progress', ...effect.progress.slice(-20).map((one) => block(app, one))) : null,
    effect.dets ? section('Times and numbers it drew', facts(effect.dets.map((one) => [`${one.kind} ${one.use}`, asText(one.value)]))) : null,
    !effect.end && !effect.skip && effect.began !== undefined ? h('p', { class: 'note' }, ENDLESS[run.info.status] ?? 'It has no end: it was in flight when the record ends.') : null,
    known.some(([, value]) => value) ? section('Facts', facts(known)) : null,
  ];
}

/** @type {Record<string, string>} */
const WAITS = {
  approval: 'This call waits for a person: it runs when it is approved.',
  deferred: 'This call is answered from outside: the run goes on when it has a result.',
  question: 'The running call asks a person something, and waits for the answer.',
  in_flight: 'This call was in flight when the run was interrupted. It may have had its effect: decide whether it runs again, or what its result was.',
};
/**
 * Return which calls of the same step wait, too: none of them runs before all are decided.
 * @param {App} app
 * @param {Effect} effect
 */
function othersWait({ store, state }, effect) {
  const step = store.shown.above(effect.at);
  const others = (store.runs[effect.side].info.pending ?? []).filter((/** @type {any} */ one) => one.at !== effect.at && store.shown.above(one.at) === step);
  if (!others.length || effect.waited === 'question') return null;
  return h('p', { class: 'note others-wait' }, 'The step goes on when all its waiting calls are decided. Also waiting: ', ...others.slice(0, 20).flatMap((/** @type {any} */ one, /** @type {number} */ index) => [index ? ', ' : '', button(one.at, () => state.go(store.shown, one.at), { class: 'link' })]), others.length > 20 ? ` and ${others.length - 20} more` : '', '.');
}

/** @type {Record<string, string>} */
const SKIPPED = {
  output: 'This call is the output of the run: no tool runs it.',
  handoff: 'This call hands the conversation over to another agent.',
  denied: 'The call was denied.',
  answered: 'The call was answered by a decision.',
  refused: 'The call was refused; the model reads why.',
  repeated: 'The response only repeats calls of the one before.',
  limit: 'The run ends here, at a limit.',
};
/** @type {Record<string, string>} */
const ENDLESS = { running: 'It is running.', interrupted: 'It was in flight when the run broke off.' };

/**
 * Return the arguments beside what the schema says of each.
 * @param {App} app
 * @param {Effect} effect
 * @returns {import('./dom.js').Child[]}
 */
function argumentsOf(app, effect) {
  const schema = schemaOf(app, effect), text = effect.arguments ?? '';
  const values = objectOf(text), problems = effect.problems ?? [];
  if (!schema || !values) return [...problems.map(problemLine), text ? block(app, text, { label: 'arguments' }) : h('p', { class: 'note' }, 'No arguments were recorded.')];
  const names = [...new Set([...Object.keys(schema.properties ?? {}), ...Object.keys(values)])];
  if (!names.length) return [h('p', { class: 'note' }, 'The tool takes no arguments.')];
  const rows = names.map((name) => {
    const property = schema.properties?.[name];
    const wrong = problems.filter((one) => one.where === `/${name}` || one.where.startsWith(`/${name}/`));
    const given = Object.hasOwn(values, name);
    return h('tr', { class: wrong.length ? 'wrong' : '' },
      h('th', { scope: 'row' }, h('code', {}, short(name, 80)), h('div', { class: 'type' }, property ? typeOf(property) : 'unknown', (schema.required ?? []).includes(name) ? '' : ', optional')),
      h('td', {}, given ? block(app, values[name], { first: 2000, label: name }) : h('span', { class: 'note' }, 'left out'), ...wrong.map(problemLine), property?.description ? h('p', { class: 'about' }, short(String(property.description), 400)) : null));
  });
  const placed = new Set(names.map((name) => `/${name}`));
  const others = problems.filter((one) => ![...placed].some((at) => one.where === at || one.where.startsWith(`${at}/`)));
  return [h('table', { class: 'arguments' }, h('tbody', {}, rows)), ...others.map(problemLine),
    h('p', { class: problems.length ? 'verdict bad' : 'verdict good' }, problems.length ? 'The arguments do not match the schema.' : 'The arguments match the schema.'),
    h('details', {}, h('summary', {}, 'Schema, and the text that the model sent'), block(app, schema, { label: 'schema' }), block(app, text, { label: 'arguments' }))];
}

/** @param {{where: string, text: string}} problem */
function problemLine({ where, text }) {
  return h('p', { class: 'problem' }, `${where}: ${short(text, 500)}`);
}

/**
 * Return the schema that the model was given of a tool.
 * @param {App} app
 * @param {Effect} effect
 */
function schemaOf({ store }, effect) {
  const run = store.runs[effect.side], step = run.get(run.above(effect.at));
  const tools = store.blob(step?.start?.tools);
  if (!Array.isArray(tools)) return null;
  const found = tools.map((one) => one?.function).find((one) => one?.name === effect.name)?.parameters;
  return found && typeof found === 'object' ? found : null;
}

/** @param {any} property */
function typeOf(property) {
  if (property.enum) return property.enum.map(asText).join(' | ').slice(0, 120);
  const kinds = property.anyOf ?? property.oneOf;
  if (Array.isArray(kinds)) return kinds.map((one) => one?.type ?? one?.$ref?.split('/').pop() ?? '?').join(' | ');
  if (property.type === 'array' && property.items?.type) return `${property.items.type}[]`;
  return asText(property.type ?? property.$ref?.split('/').pop() ?? 'any');
}

/**
 * Return the members of a JSON object, each as its own JSON text or string; null if it is none.
 * @param {string} text
 * @returns {Record<string, any> | null}
 */
function objectOf(text) {
  try {
    const value = JSON.parse(text || '{}');
    // A number that a browser cannot hold is better seen in the text.
    const exact = !/\d{16}/.test(text);
    return exact && value && typeof value === 'object' && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}
