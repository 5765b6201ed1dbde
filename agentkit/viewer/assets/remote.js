// @ts-check
/** What an agent did that answered as a model: `agentkit serve` puts its steps beside the answer. */

import { h, section } from './dom.js';
import { asText, count, short, tokens } from './format.js';
import { block } from './text.js';

/** @typedef {import('./store.js').Effect} Effect */
/** @typedef {{at: string, name: string, status: string, note: string, parts: [string, any][]}} Row */

const MOST = 200;

/**
 * Return what was sent of the steps of a served agent, which may be anything.
 * @param {Effect} effect
 * @returns {Record<string, any>[]}
 */
export function stepsOf(effect) {
  const steps = effect.end?.response?.extra?.agentkit?.steps;
  return Array.isArray(steps) ? steps.filter((one) => one !== null && typeof one === 'object') : [];
}

/**
 * Return a section with these steps; null if there are none.
 * @param {import('./state.js').App} app
 * @param {Effect} effect
 * @returns {HTMLElement | null}
 */
export function remote(app, effect) {
  const all = rows(stepsOf(effect));
  if (!all.length) return null;
  const { run, status } = effect.end?.response?.extra?.agentkit ?? {};
  const calls = all.slice(0, MOST).map((one) => {
    const { sign, word, tone } = app.store.mark(short(one.status, 30));
    const preview = one.parts.map(([, value]) => short(asText(value), 100)).join('  →  ');
    const body = h('div', { class: 'message-body' });
    const fillBody = () => {
      if (!body.childNodes.length) body.append(...one.parts.map(([label, value]) => h('div', {}, h('h4', {}, label), block(app, value, { label: label.toLowerCase() }))));
    };
    return h('details', { class: 'message', ontoggle: fillBody },
      h('summary', {}, h('span', { class: 'role' }, short(one.name, 60)), h('span', { class: `status t-${tone}` }, `${sign} ${word}`),
        h('span', { class: 'preview' }, preview || one.note), h('span', { class: 'num' }, short(one.at, 60))), body);
  });
  return section(['Steps of the served agent ', h('small', {}, [`${count(all.length)} steps and calls`, run && `run ${short(asText(run), 40)}`, status && short(asText(status), 20)].filter(Boolean).join(', '))],
    ...calls, all.length > MOST ? h('p', { class: 'note' }, `${all.length - MOST} more are not shown; Raw has them.`) : null);
}

/**
 * Return what began and ended as one row each, in the order in which it began.
 * @param {Record<string, any>[]} steps
 * @returns {Row[]}
 */
function rows(steps) {
  /** @type {Row[]} */
  const all = [];
  /** @type {Map<string, Row>} */
  const open = new Map();
  for (const one of steps) {
    const at = asText(one.at ?? '');
    let row = open.get(at);
    if (!row || one.event === 'step' || one.event === 'tool') {
      row = { at, name: asText(one.name ?? one.model ?? one.event ?? '?'), status: 'in_flight', note: '', parts: [] };
      all.push(row);
      open.set(at, row);
    }
    if (one.event === 'step_end') {
      row.status = one.failed ? 'error' : 'ok';
      const { input_tokens: read, output_tokens: written } = one.usage ?? {};
      if (typeof read === 'number' && typeof written === 'number') row.note = `${tokens({ input_tokens: read, output_tokens: written })} tokens`;
    } else if (one.event === 'tool_end') {
      row.status = asText(one.status ?? 'ok');
      row.parts.push(['Result', one.text ?? '']);
    } else if (one.event === 'tool') row.parts.push(['Arguments', one.arguments ?? '']);
    else if (one.event === 'progress') row.parts.push(['Progress', one.value]);
    else if (one.event === 'warning') row.parts.push(['Warning', one.code ?? '']);
    else if (one.event === 'restarted') row.note = 'begun again';
  }
  return all;
}
