// Tables that are wider than a narrow screen scroll in a box; the keyboard has to reach it. The bibliography is marked as
// a list without items, which screen readers can't count.
document.addEventListener("DOMContentLoaded", () => {
  for (const list of document.querySelectorAll(".citation-list[role=list]")) {
    list.removeAttribute("role");
  }
  for (const box of document.querySelectorAll(".pst-scrollable-table-container")) {
    box.tabIndex = 0;
  }
});
