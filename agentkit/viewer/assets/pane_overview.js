// @ts-check
/** An agent as a whole: what it was asked, what came out, what failed, what waits. */

import { button, facts, h, section } from './dom.js';
import { asText, count, counted, duration, money, short } from './format.js';
import { failure } from './failure.js';
import { message, messageList } from './message.js';
import { block } from './text.js';

/** @type {import('./panes.js').Pane['show']} */
export function overviewPane(app, effect) {
  const { store, state } = app;
  const run = store.runs[effect.side], { info } = run;
  const outermost = effect.at === run.root;
  const input = store.blob(effect.start?.input);
  const names = Array.isArray(input?.messages) ? input.messages : [];
  const { output } = effect;
  const link = (/** @type {string} */ at) => button(at, () => state.go(store.shown, at, { side: effect.side }), { class: 'link' });
  const below = [...run.effects.values()].filter((one) => one.at.startsWith(`${effect.at}/`));
  const failures = below.filter((one) => one.kind !== 'agent' && store.failed(one));
  const usage = effect.usage ?? {};
  return [
    outermost ? banner(info) : null,
    outermost && info.pending?.length ? section('Waits for a decision', h('div', { class: 'links' }, info.pending.map((/** @type {any} */ one) => link(one.at)))) : null,
    section('Asked', names.length ? messageList(app, names, (name, index) => message(app, name, { open: index === names.length - 1 }), 6) : h('p', { class: 'note' }, 'What it was asked was not recorded.')),
    output !== undefined && output !== null ? section('Output', block(app, output, { kind: 'output prose', label: 'output' })) : null,
    failure(app, effect) ? section('Error', failure(app, effect)) : null,
    failures.length ? section(['Failed ', h('small', {}, String(failures.length))], h('div', { class: 'links' }, failures.slice(0, 20).map((one) => h('div', {}, link(one.at), ' ', h('span', { class: 'note' }, `${one.name}: ${short(asText(one.end?.error?.message ?? one.note ?? one.status), 120)}`))))) : null,
    section('Totals', facts([
      ['Status', info.status && outermost ? info.status : effect.status],
      ['Took', effect.ended === undefined ? '' : duration(effect.ended - (effect.began ?? 0))],
      ['Model calls', count(below.filter((one) => one.kind === 'model' && one.began !== undefined).length)],
      ['Tool calls', count(below.filter((one) => one.kind === 'tool' && one.began !== undefined).length)],
      ['Input tokens', count(usage.input_tokens ?? 0)],
      ['Output tokens', count(usage.output_tokens ?? 0)],
      ['Cached tokens', usage.cached_tokens ? count(usage.cached_tokens) : ''],
      ['Cost', money(usage.cost) || 'no price is known'],
    ])),
    effect.start?.options && Object.keys(effect.start.options).length ? section('Options of this run', block(app, effect.start.options)) : null,
    outermost ? section('Run', facts([
      ['Id', info.run], ['Began', info.wall], ['File', info.file],
      ['Recorded', info.capture === 'full' ? '' : `${info.capture}: without contents`],
      ['Resumed', info.resumed ? counted(info.resumed, 'time') : ''],
      ['agentkit', info.header?.agentkit], ['Versions', Object.entries(info.header?.versions ?? {}).map(([name, one]) => `${name} ${asText(one)}`).join(', ')],
    ])) : null,
  ];
}

/** @param {any} info */
function banner(info) {
  const lines = [
    info.forked,
    info.status === 'interrupted' && 'The run was interrupted: what is recorded ends here.',
    info.status === 'running' && 'The run is going on; this is the record so far.',
    info.status === 'cancelled' && 'The run was cancelled.',
    info.status === 'paused' && 'The run is paused: it waits for a decision.',
    info.torn && 'The last line of the file is torn, as a crash leaves it.',
  ].filter(Boolean);
  return lines.length ? h('div', { class: 'banner' }, lines.map((line) => h('p', {}, short(String(line), 600)))) : null;
}
