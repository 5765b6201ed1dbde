// @ts-check
/** Commands to copy: where one goes on from what one sees. */

import { quoted } from './format.js';

/**
 * @typedef {object} Command
 * @property {string} label
 * @property {string} key the key that copies it
 * @property {string} text
 * @property {string} about
 */

/**
 * Return the commands that go on from an effect.
 * @param {import('./state.js').App} app
 * @param {import('./store.js').Effect} effect
 * @returns {Command[]}
 */
export function commandsFor({ store }, effect) {
  const { program } = store.page;
  const run = store.runs[effect.side];
  const file = quoted(run.info.file ?? 'TRACE.jsonl'), at = quoted(effect.at);
  const app = `--app ${quoted(store.page.app)}`;
  const commands = [
    { label: 'Fork', key: 'f', text: `${program} fork ${file} ${app} --at ${at}`, about: 'Run again from here on, with something changed' },
    { label: 'Test', key: 't', text: `${program} test-from ${file} ${app}`, about: 'Make a pytest test of this run' },
    { label: 'Show', key: 'c', text: `${program} show ${file} --at ${at}`, about: 'Show this in a terminal' },
  ];
  if (waits(store, effect)) commands.unshift({ label: 'Decide', key: 'd', text: `${program} resume ${file} ${app} --approve ${at}`, about: 'Go on, with the call approved' });
  if (store.two) commands.push({ label: 'Diff', key: 'd', text: `${program} diff ${quoted(store.runs.a.info.file ?? 'A.jsonl')} ${quoted(store.runs.b.info.file ?? 'B.jsonl')}`, about: 'Compare both in a terminal' });
  return commands;
}

/**
 * Whether a call waits for a decision.
 * @param {import('./store.js').Store} store
 * @param {import('./store.js').Effect} effect
 */
export function waits(store, effect) {
  return (store.runs[effect.side].info.pending ?? []).some((/** @type {any} */ one) => one.at === effect.at);
}
