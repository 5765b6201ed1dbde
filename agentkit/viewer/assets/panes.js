// @ts-check
/** The tabs: what each shows of an effect, and of which effects it shows something. */

import { comparePane } from './pane_compare.js';
import { changesPane, contextPane } from './pane_context.js';
import { attemptsPane, logsPane, rawPane, sourcePane } from './pane_more.js';
import { overviewPane } from './pane_overview.js';
import { streamPane } from './pane_stream.js';
import { toolPane } from './pane_tool.js';

/** @typedef {import('./state.js').App} App */
/** @typedef {import('./store.js').Effect} Effect */
/**
 * @typedef {object} Pane
 * @property {string} id
 * @property {string} label
 * @property {(effect: Effect, app: App) => boolean} applies
 * @property {(effect: Effect) => number} [count] how much it shows
 * @property {(app: App, effect: Effect) => import('./dom.js').Child[]} show
 */

/** @type {Pane[]} */
export const PANES = [
  { id: 'compare', label: 'Compare', applies: (_, app) => app.store.two, show: comparePane },
  { id: 'overview', label: 'Overview', applies: (one) => one.kind === 'agent', show: overviewPane },
  { id: 'context', label: 'Context', applies: (one) => one.kind === 'model', show: contextPane },
  { id: 'changes', label: 'Changes', applies: (one) => one.kind === 'model', show: changesPane },
  { id: 'tool', label: 'Tool', applies: (one) => one.kind === 'tool' || one.kind === 'compute', show: toolPane },
  { id: 'attempts', label: 'Attempts', applies: (one) => one.kind === 'model', count: (one) => one.attempts?.length ?? 0, show: attemptsPane },
  { id: 'stream', label: 'Stream', applies: (one) => one.kind === 'model' || Boolean(one.progress), count: (one) => one.deltas?.length ?? one.progress?.length ?? 0, show: streamPane },
  { id: 'source', label: 'Source', applies: (one) => one.kind !== 'agent' || Boolean(one.end?.error?.traceback), show: sourcePane },
  { id: 'logs', label: 'Logs', applies: () => true, count: (one) => (one.logs?.length ?? 0) + (one.warnings?.length ?? 0), show: logsPane },
  { id: 'raw', label: 'Raw', applies: () => true, show: rawPane },
];
