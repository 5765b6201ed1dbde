// @ts-check
/** What failed, with its traceback. */

import { h } from './dom.js';
import { asText, short } from './format.js';
import { block } from './text.js';

/**
 * Return why an effect failed; null if it did not.
 * @param {import('./state.js').App} app
 * @param {import('./store.js').Effect} effect
 * @returns {HTMLElement | null}
 */
export function failure(app, effect) {
  const error = effect.end?.error;
  return error ? one(app, error) : null;
}

/**
 * @param {import('./state.js').App} app
 * @param {any} error
 * @returns {HTMLElement}
 */
function one(app, error) {
  const data = error.data && Object.keys(error.data).length ? error.data : null;
  return h('div', { class: 'failure' },
    h('div', { class: 'failure-type' }, short(asText(error.type ?? 'Error'), 200)),
    error.message ? block(app, error.message, { kind: 'bad', label: 'error' }) : null,
    data && h('details', {}, h('summary', {}, 'Details'), block(app, data)),
    error.traceback ? h('details', { open: true }, h('summary', {}, 'Traceback'), block(app, error.traceback, { label: 'traceback' })) : null,
    ...(error.parts ?? []).map((/** @type {any} */ part) => one(app, part)));
}
