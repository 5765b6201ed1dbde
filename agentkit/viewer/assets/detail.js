// @ts-check
/** The right side: where one is, commands to copy, and the tabs. */

import { button, fill, h } from './dom.js';
import { duration, short, tokens } from './format.js';
import { commandsFor } from './commands.js';
import { PANES } from './panes.js';
import { copy, pattern } from './text.js';
import { labelOf, statusOf } from './tree.js';

/** @typedef {import('./store.js').Effect} Effect */

export class Detail {
  /** @param {import('./state.js').App} app */
  constructor(app) {
    this.app = app;
    /** What is shown, so that the same is not made again. */
    this.shown = /** @type {any[]} */ ([]);
    this.head = h('header', { class: 'detail-head' });
    this.tabs = h('div', { class: 'tabs', role: 'tablist', 'aria-label': 'Views', onkeydown: (/** @type {KeyboardEvent} */ event) => this.key(event) });
    this.panel = h('div', { class: 'panel', role: 'tabpanel', tabindex: 0, id: 'panel' });
    this.element = h('section', { class: 'detail', 'aria-label': 'Details' }, this.head, this.tabs, this.panel);
  }

  /** The effect that is looked at: of the chosen side, where that has it. */
  get effect() {
    return this.app.store.find(this.app.state.at, this.app.state.side);
  }

  /** @returns {import('./panes.js').Pane[]} */
  get panes() {
    const effect = this.effect;
    return effect ? PANES.filter((pane) => pane.applies(effect, this.app)) : [];
  }

  get pane() {
    const { panes } = this;
    return panes.find((pane) => pane.id === this.app.state.tab) ?? panes[0];
  }

  update() {
    const { effect, pane } = this;
    const { store, state } = this.app;
    const now = [effect, pane, state.query, store.runs.a.info, store.diff];
    if (now.every((one, index) => one === this.shown[index])) return;
    const same = this.shown[0]?.at === effect?.at && this.shown[1] === pane;
    this.shown = now;
    if (!effect) {
      fill(this.head, h('h2', {}, 'Nothing is recorded yet'));
      fill(this.tabs);
      fill(this.panel);
      return;
    }
    this.title(effect);
    fill(this.tabs, this.panes.map((one) => {
      const much = one.count?.(effect);
      return h('button', { type: 'button', role: 'tab', id: `tab-${one.id}`, 'aria-selected': one === pane, 'aria-controls': 'panel', tabindex: one === pane ? 0 : -1, class: much === 0 ? 'empty' : undefined, onclick: () => state.set({ tab: one.id }) },
        one.label, much ? h('span', { class: 'count' }, String(much)) : null);
    }));
    this.panel.setAttribute('aria-labelledby', `tab-${pane.id}`);
    const top = same ? this.panel.scrollTop : 0;
    fill(this.panel, pane.show(this.app, effect));
    this.panel.scrollTop = top;
    this.highlight();
  }

  /** @param {Effect} effect */
  title(effect) {
    const { store, state } = this.app;
    const { tag, name } = labelOf(store, effect);
    const { sign, word, tone } = store.mark(statusOf(store, effect));
    const sides = store.two ? h('span', { class: 'sides', role: 'group', 'aria-label': 'Which run' }, ['a', 'b'].map((side) => button(side, () => state.set({ side }), { 'aria-pressed': String(effect.side === side), disabled: !store.runs[side].get(effect.at) }))) : null;
    fill(this.head,
      h('div', { class: 'crumbs' }, button('‹ Tree', () => document.body.classList.remove('looking'), { class: 'back' }), h('nav', { 'aria-label': 'Address' }, this.crumbs(effect.at)), sides),
      h('div', { class: 'title' }, h('span', { class: `icon k-${effect.kind}`, 'aria-hidden': 'true' }),
        h('h2', {}, effect.kind === 'model' ? `Step ${tag.slice(1)}` : short(name || tag, 80)), effect.kind === 'model' ? h('span', { class: 'note' }, short(modelName(effect), 60)) : null,
        h('span', { class: `status t-${tone}` }, `${sign} ${word}`),
        h('span', { class: 'num' }, effect.began === undefined || effect.ended === undefined ? '' : duration(effect.ended - effect.began)),
        tokens(effect.usage) && h('span', { class: 'num' }, `${tokens(effect.usage)} tokens`)),
      h('div', { class: 'commands', role: 'toolbar', 'aria-label': 'Commands to copy' }, commandsFor(this.app, effect).map((one) => button(one.label, () => copy(this.app, one.text, `Copied: ${one.text}`), { title: `${one.about}. Copies (${one.key}): ${one.text}`, 'data-command': one.text, 'aria-label': `Copy the command: ${one.label}` }))));
  }

  /** @param {string} at */
  crumbs(at) {
    const { store, state } = this.app;
    const parts = at.split('/').slice(1);
    return parts.flatMap((part, index) => {
      const up = `/${parts.slice(0, index + 1).join('/')}`;
      const known = up !== at && store.shown.get(up);
      return [h('span', { class: 'slash' }, '/'), known ? button(part, () => state.go(store.shown, up), { class: 'link' }) : h('span', up === at ? { 'aria-current': 'location' } : {}, part)];
    });
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.turn(by);
    /** @type {HTMLElement | null} */ (this.tabs.querySelector('[aria-selected=true]'))?.focus();
  }

  /**
   * Show another tab, so many further on.
   * @param {number} by
   */
  turn(by) {
    const { panes, pane } = this;
    if (panes.length) this.app.state.set({ tab: panes[(panes.indexOf(pane) + by + panes.length) % panes.length].id });
  }

  /** Mark what the search finds in what is shown, and bring the first of it into view. */
  highlight() {
    const highlights = /** @type {any} */ (CSS).highlights;
    if (!highlights) return;
    highlights.delete('found');
    const { query } = this.app.state;
    if (!query) return;
    const walker = document.createTreeWalker(this.panel, NodeFilter.SHOW_TEXT);
    const ranges = [];
    for (let node = walker.nextNode(); node && ranges.length < 2000; node = walker.nextNode()) {
      for (const match of (node.textContent ?? '').matchAll(pattern(query))) {
        const range = new Range();
        range.setStart(node, match.index);
        range.setEnd(node, match.index + match[0].length);
        ranges.push(range);
        if (ranges.length >= 2000) break;
      }
    }
    if (!ranges.length) return;
    highlights.set('found', new (/** @type {any} */ (globalThis).Highlight)(...ranges));
    const place = ranges[0].getBoundingClientRect(), frame = this.panel.getBoundingClientRect();
    if (place.top < frame.top || place.bottom > frame.bottom) this.panel.scrollTop += place.top - frame.top - frame.height / 3;
  }
}

/** @param {Effect} effect */
function modelName(effect) {
  const other = effect.end?.response?.extra?.answered_by;
  return typeof other === 'string' ? `${other} of ${effect.name}` : effect.name;
}
