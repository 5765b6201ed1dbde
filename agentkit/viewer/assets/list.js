// @ts-check
/** A list of any length, of which only what is seen is in the page. Its rows are equally high. */

import { fill, h } from './dom.js';

const SPARE = 8;

/** @template T */
export class List {
  /**
   * @param {HTMLElement} scroller what scrolls
   * @param {(row: T, index: number) => HTMLElement} render makes a row
   */
  constructor(scroller, render) {
    this.scroller = scroller;
    this.render = render;
    /** @type {T[]} */
    this.rows = [];
    this.resized = () => this.show(this.rows);
    this.height = 28;
    this.inner = h('div', { class: 'list', role: 'presentation' });
    this.first = this.last = -1;
    scroller.append(this.inner);
    scroller.addEventListener('scroll', () => this.draw(), { passive: true });
    new ResizeObserver(() => this.resized()).observe(scroller);
  }

  /** @param {T[]} rows */
  show(rows) {
    this.rows = rows;
    this.height = parseFloat(getComputedStyle(this.scroller).getPropertyValue('--row')) || 28;
    this.inner.style.height = `${rows.length * this.height}px`;
    this.first = -1;
    this.draw();
  }

  draw() {
    const { scrollTop, clientHeight } = this.scroller;
    const first = Math.max(0, Math.floor(scrollTop / this.height) - SPARE);
    const last = Math.min(this.rows.length, Math.ceil((scrollTop + clientHeight) / this.height) + SPARE);
    if (first === this.first && last === this.last) return;
    this.first = first;
    this.last = last;
    fill(this.inner, this.rows.slice(first, last).map((row, offset) => {
      const element = this.render(row, first + offset);
      element.style.top = `${(first + offset) * this.height}px`;
      return element;
    }));
  }

  /** @param {number} index */
  reveal(index) {
    const top = index * this.height, { scrollTop, clientHeight } = this.scroller;
    if (top < scrollTop) this.scroller.scrollTop = top;
    else if (top + this.height > scrollTop + clientHeight) this.scroller.scrollTop = top + this.height - clientHeight + 4;
    this.draw();
  }
}
