# bars.gp - groups of bars with intervals.
# data: one block "x y lo hi label" per series. series: their number. barwidth: width of one bar.
# fill[i]: colour of series i. labelfont: font of the labels.
set boxwidth barwidth
set style fill solid 1.0 noborder
set grid noxtics ytics
set tics scale 0
plot for [i=1:series] data index i-1 using 1:2 with boxes linecolor rgb fill[i] notitle, \
     for [i=1:series] data index i-1 using 1:($3==$3 ? $2 : NaN):3:4 with yerrorbars \
       linecolor rgb '#444444' pointtype -1 linewidth 0.8 notitle, \
     for [i=1:series] data index i-1 using 1:2:5 with labels offset 0,0.7 font labelfont \
       textcolor rgb ink notitle
