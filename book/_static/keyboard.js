// Tables that are wider than a narrow screen scroll in a box; the keyboard has to reach it.
document.addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll(".pst-scrollable-table-container")) {
    box.tabIndex = 0;
  }
});
