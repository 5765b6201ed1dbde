// @ts-check
/** HTTP attempts, lines of the log, code, and the trace's own words. */

import { h, section } from './dom.js';
import { asText, duration, quoted, short } from './format.js';
import { failure } from './failure.js';
import { block } from './text.js';

/** @type {import('./panes.js').Pane['show']} */
export function attemptsPane(app, effect) {
  const attempts = effect.attempts ?? [];
  if (!attempts.length) return [h('p', { class: 'note' }, 'No HTTP attempt was recorded: the model is not asked over HTTP, or its answer came from elsewhere.')];
  const began = attempts[0].began, end = Math.max(...attempts.map((one) => one.ended ?? one.began), began + 1);
  const rows = attempts.map((one) => {
    const bar = h('span', { class: `bar${one.status === 200 ? '' : ' failed'}` }), line = h('span', { class: 'timing wide' }, bar);
    bar.style.left = `${(100 * (one.began - began)) / (end - began)}%`;
    bar.style.width = `${(100 * ((one.ended ?? end) - one.began)) / (end - began)}%`;
    return h('tr', {}, h('td', {}, String(one.number)), h('td', { class: one.status >= 400 || one.error ? 'bad' : '' }, one.ended === undefined ? 'in flight' : asText(one.status ?? 'no response')),
      h('td', { class: 'num' }, one.ended === undefined ? '' : duration(one.ended - one.began)), h('td', {}, line), h('td', {}, short(asText(one.host), 80)),
      h('td', {}, [one.error && short(asText(one.error), 300), one.retry_after !== undefined && `the server asked for ${one.retry_after} s`, one.delay !== undefined && `asked again after ${duration(one.delay)}`, one.request_id && `request ${short(asText(one.request_id), 80)}`].filter(Boolean).join('; ')));
  });
  return [h('div', { class: 'wide-table' }, h('table', { class: 'table' }, h('thead', {}, h('tr', {}, ...['#', 'Status', 'Took', 'When', 'Host', 'Notes'].map((one) => h('th', { scope: 'col' }, one)))), h('tbody', {}, rows))), failure(app, effect)];
}

/** @type {import('./panes.js').Pane['show']} */
export function logsPane(app, effect) {
  const { store } = app;
  const run = store.runs[effect.side];
  const ours = [effect, ...(effect.kind === 'agent' || effect.kind === 'tool' ? [...run.effects.values()].filter((one) => one.at.startsWith(`${effect.at}/`)) : [])];
  const lines = ours.flatMap((one) => [
    ...(one.warnings ?? []).map((line) => ({ t: one.began ?? 0, at: one.at, level: 'warning', text: `${line.code}${line.text ? `: ${line.text}` : ''}`, data: line.data })),
    ...(one.logs ?? []).map((line) => ({ ...line, at: one.at })),
  ]).sort((a, b) => a.t - b.t);
  if (!lines.length) return [h('p', { class: 'note' }, 'Nothing was logged here. agentkit.trace.to_trace, a structlog processor, puts what your application logs inside a run into its trace.')];
  return [h('div', { class: 'log' }, lines.slice(0, 500).map((line) => h('div', { class: `log-line level-${/^\w+$/.test(line.level) ? line.level : 'other'}` },
    h('span', { class: 'num' }, duration(line.t)), h('span', { class: 'level' }, short(asText(line.level), 12)),
    h('div', {}, h('span', { class: 'log-text' }, short(asText(line.text), 2000)), line.at === effect.at ? null : h('span', { class: 'note' }, ` ${line.at}`),
      line.data && Object.keys(line.data).length ? h('div', { class: 'log-data' }, ...Object.entries(line.data).map(([name, value]) => h('span', {}, h('i', {}, `${short(name, 40)}=`), short(asText(value), 600)))) : null)))),
  lines.length > 500 ? h('p', { class: 'note' }, `${lines.length - 500} more lines are not shown.`) : null];
}

/** @type {import('./panes.js').Pane['show']} */
export function sourcePane(app, effect) {
  const { store } = app;
  const source = effect.kind === 'tool' ? store.sources.get(effect.name) : undefined;
  const frames = framesOf(asText(effect.end?.error?.traceback ?? ''));
  const run = store.runs[effect.side];
  return [
    source ? section(['Tool ', h('small', {}, `${source.file}:${source.line}`)], listing(source.text, source.line, new Set(frames.filter((one) => one.file.endsWith(source.file)).map((one) => one.line)))) : null,
    frames.length ? section('Where it was raised', h('ol', { class: 'frames' }, frames.map((one) => h('li', {}, h('div', { class: 'note' }, `${one.file}:${one.line}, in ${one.name}`), one.code && h('pre', { class: 'text' }, one.code))))) : null,
    !source && effect.kind === 'tool' ? h('p', { class: 'note' }, 'A trace holds no code. ', h('code', {}, `${store.page.program} view ${quoted(run.info.file ?? 'TRACE.jsonl')} --app FILE.py:NAME`), ' makes a page with the code of the tools.') : null,
    !source && effect.kind !== 'tool' && !frames.length ? h('p', { class: 'note' }, 'Nothing was raised here.') : null,
  ];
}

/**
 * Return the places that a traceback names, the innermost first.
 * @param {string} text
 */
function framesOf(text) {
  return [...text.matchAll(/^ *File "([^"\n]+)", line (\d+), in ([^\n]*)(?:\n +([^\n]+))?/gm)].map((one) => ({ file: short(one[1], 300), line: Number(one[2]), name: short(one[3], 100), code: short(one[4] ?? '', 300) })).reverse().slice(0, 50);
}

/**
 * Return lines of code with their numbers.
 * @param {string} text
 * @param {number} first
 * @param {Set<number>} marked
 */
function listing(text, first, marked) {
  const lines = text.replace(/\n$/, '').split('\n').slice(0, 400);
  return h('pre', { class: 'text code', tabindex: 0 }, lines.map((line, index) => h('span', { class: `code-line${marked.has(first + index) ? ' marked' : ''}`, 'data-line': first + index }, `${line}\n`)));
}

/** @type {import('./panes.js').Pane['show']} */
export function rawPane(app, effect) {
  const { store } = app;
  const names = [effect.start?.input, effect.start?.tools, effect.end?.message, effect.skip?.message].filter((one) => typeof one === 'string' && store.blobs.has(one));
  return [section('Record', block(app, JSON.stringify(effect), { label: 'record' })), ...[...new Set(names)].map((name) => section(['Content ', h('small', {}, name)], block(app, JSON.stringify(store.blob(name)), { label: 'content' })))];
}
