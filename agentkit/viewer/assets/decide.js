// @ts-check
/** Decides about a call that waits, where the page has somebody to tell. */

import { button, fill, h } from './dom.js';

/**
 * Return the form with which a person decides.
 * @param {import('./state.js').App} app
 * @param {import('./store.js').Effect} effect
 */
export function decisionForm(app, effect) {
  const text = /** @type {HTMLTextAreaElement} */ (h('textarea', { rows: 3, 'aria-label': 'Reason, arguments as JSON, or answer', placeholder: 'Reason, arguments as JSON, or answer' }));
  const status = h('p', { class: 'note', role: 'status' });
  const form = h('div', { class: 'decide' });
  const send = async (/** @type {string} */ kind) => {
    form.querySelectorAll('button').forEach((one) => { one.disabled = true; });
    try {
      await app.source.decide?.(effect.at, { kind, text: text.value });
      fill(status, `Sent: ${kind}.`);
    } catch (error) {
      fill(status, `It could not be sent: ${error instanceof Error ? error.message : error}`);
      form.querySelectorAll('button').forEach((one) => { one.disabled = false; });
    }
  };
  const kinds = effect.waited === 'deferred' || effect.waited === 'question' ? ['answer', 'deny'] : ['approve', 'deny', 'edit', 'answer'];
  fill(form, text, h('div', { class: 'links' }, kinds.map((kind) => button(kind[0].toUpperCase() + kind.slice(1), () => send(kind), { class: `decide-${kind}` }))), status);
  return form;
}
